import { watchCases } from './watch.cases.ts';

watchCases('legacy');
