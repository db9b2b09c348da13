import { testEnvoy } from './support/envoy.cases.ts';

testEnvoy({ name: 'iptables-legacy', backend: 'iptables', variant: 'legacy' });
