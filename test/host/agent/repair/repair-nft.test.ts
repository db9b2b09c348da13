import { repairCases } from './repair.cases.ts';

repairCases('nft');
