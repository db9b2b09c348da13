import { rulesCases } from './rules.cases.ts';

rulesCases('legacy');
