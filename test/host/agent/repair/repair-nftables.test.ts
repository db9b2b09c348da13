import { repairCases } from './repair.cases.ts';

repairCases('nftables', 'nft', ['nftables']);
