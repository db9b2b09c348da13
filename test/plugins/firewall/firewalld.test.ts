import { suite } from '../../support/suite.ts';
import { missingPrograms } from './firewalld-host.ts';
import { firewalldCases } from './firewalld.cases.ts';

if (missingPrograms === undefined) firewalldCases();
else suite('firewall on firewalld').skip('all of it', `${missingPrograms} is not installed`);
