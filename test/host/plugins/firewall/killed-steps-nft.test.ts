import { killedStepsCases } from './killed-steps.cases.ts';

killedStepsCases('nft');
