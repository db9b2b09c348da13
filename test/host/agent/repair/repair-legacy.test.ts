import { repairCases } from './repair.cases.ts';

repairCases('iptables-legacy', 'legacy', ['iptables']);
