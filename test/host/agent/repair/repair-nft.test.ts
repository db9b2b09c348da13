import { repairCases } from './repair.cases.ts';

repairCases('iptables-nft', 'nft', ['iptables']);
