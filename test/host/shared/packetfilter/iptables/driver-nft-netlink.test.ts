import { kernelDriverCases } from './kernel-driver.cases.ts';

kernelDriverCases('nft', 'in process');
