import { holdersCases } from './holders.cases.ts';

holdersCases('nftables');
