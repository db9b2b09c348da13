import { configCases } from './config.cases.ts';

configCases('legacy');
