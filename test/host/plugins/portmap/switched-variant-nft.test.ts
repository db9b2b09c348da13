import { switchedVariantCases } from './switched-variant.cases.ts';

switchedVariantCases('nft');
