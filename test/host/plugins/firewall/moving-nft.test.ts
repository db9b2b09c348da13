import { movingCases } from './moving.cases.ts';

movingCases('nft');
