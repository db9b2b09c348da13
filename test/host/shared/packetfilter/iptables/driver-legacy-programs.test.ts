import { driverCases } from './driver.cases.ts';

driverCases('legacy', 'by programs');
