import { configCases } from './config.cases.ts';

configCases('nftables');
