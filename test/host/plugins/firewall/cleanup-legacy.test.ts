import { cleanupCases } from './cleanup.cases.ts';

cleanupCases('legacy');
