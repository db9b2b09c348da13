import { nodePolicyCases } from './node-policy.cases.ts';

nodePolicyCases('legacy');
