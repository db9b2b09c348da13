import { holdersCases } from './holders.cases.ts';

holdersCases('legacy');
