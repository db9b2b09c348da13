import { ineffectiveCases } from './ineffective.cases.ts';

ineffectiveCases('legacy');
