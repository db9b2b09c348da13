import { suite } from '../../../../support/suite.ts';
import { whyWithout } from './host.ts';
import { firewalldCases } from './firewalld.cases.ts';

if (whyWithout === undefined) firewalldCases();
else suite('firewall on firewalld').skip('all of it', whyWithout);
