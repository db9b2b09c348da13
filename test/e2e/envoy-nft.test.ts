import { testEnvoy } from './support/envoy.cases.ts';

testEnvoy({ name: 'iptables-nft', backend: 'iptables', variant: 'nft' });
