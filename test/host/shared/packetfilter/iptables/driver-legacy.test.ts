import { kernelDriverCases } from './kernel-driver.cases.ts';

kernelDriverCases('legacy', 'by programs');
