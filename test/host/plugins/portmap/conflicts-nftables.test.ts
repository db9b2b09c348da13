import { holdersCases } from './conflicts.cases.ts';

holdersCases('nftables');
