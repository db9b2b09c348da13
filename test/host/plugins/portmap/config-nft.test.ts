import { configCases } from './config.cases.ts';

configCases('nft');
