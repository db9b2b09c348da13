import { driverCases } from './driver.cases.ts';

driverCases('legacy', 'in process');
