import { shortSoak } from './short.cases.ts';

shortSoak('nftables');
