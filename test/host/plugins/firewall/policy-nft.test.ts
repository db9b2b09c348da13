import { policyCases } from './policy.cases.ts';

policyCases('nft');
