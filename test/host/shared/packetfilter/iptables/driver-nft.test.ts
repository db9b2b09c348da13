import { driverCases } from './driver.cases.ts';

driverCases('nft', 'by programs');
