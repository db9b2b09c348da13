import { trafficCases } from './traffic.cases.ts';

trafficCases('legacy');
