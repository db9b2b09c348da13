import { repairCases } from './repair.cases.ts';

repairCases('mixed back ends', 'nft', ['iptables', 'nftables']);
