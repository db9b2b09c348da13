import { testEnvoy } from './support/envoy.cases.ts';

testEnvoy({ name: 'nftables', backend: 'nftables', variant: 'nft' });
