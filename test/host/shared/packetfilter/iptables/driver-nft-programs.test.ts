import { kernelDriverCases } from './kernel-driver.cases.ts';

kernelDriverCases('nft', 'by programs');
