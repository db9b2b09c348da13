import { dropsCases } from './drops.cases.ts';

dropsCases('nft');
