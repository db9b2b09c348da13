import { badInputCases } from './bad-input.cases.ts';

badInputCases('legacy');
