import { execFileSync } from 'node:child_process';
import { transactionCases } from '../../../../support/packetfilter/transaction-cases.ts';
import { suite } from '../../../../support/suite.ts';

const test = suite("transactions on the kernel's nf_tables", { limit: 60 });
const nft = (...args: string[]): string => execFileSync('nft', args, { encoding: 'utf8' });

transactionCases(test, {
  reset: () => void nft('flush', 'ruleset'),
  list: () => nft('-n', '-s', 'list', 'ruleset'),
});
test.run();
