import { driverCases } from './driver.cases.ts';

driverCases('nft');
