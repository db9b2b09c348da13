import { movingCases } from './moving.cases.ts';

movingCases('legacy');
