import { shortSoak } from './short.cases.ts';

shortSoak('iptables-legacy');
