import { masqueradeCases } from './masquerade.cases.ts';

masqueradeCases('nft');
