import { holdersCases } from './holders.cases.ts';

holdersCases('nft');
