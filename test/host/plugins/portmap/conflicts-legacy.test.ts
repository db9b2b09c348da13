import { holdersCases } from './conflicts.cases.ts';

holdersCases('legacy');
