import * as assert from 'uvu/assert';
import { KernelError } from '../../../../../shared/kernel/errno.ts';
import { changeNft, hasNftables, removeFromNft } from '../../../../../shared/packetfilter/nftables/change.ts';
import { NftConnection } from '../../../../../shared/packetfilter/nftables/connection.ts';
import { addTable } from '../../../../../shared/packetfilter/nftables/messages.ts';
import { makeFakeHost } from '../../../../support/packetfilter/fake-host.ts';
import { suite } from '../../../../support/suite.ts';

const test = suite('a kernel without nf_tables');
makeFakeHost();

test('has nothing to remove, and refuses an addition', () => {
  NftConnection.prototype.generation = () => {
    throw new KernelError('get generation', EINVAL);
  };
  assert.not(hasNftables());
  removeFromNft({ what: 'remove the sample' }, () => {
    throw new Error('the plan was evaluated');
  });
  const plan = () => [addTable({ family: 'ip', name: 'sample' })];
  assert.throws(() => changeNft({ what: 'add the sample' }, plan), /EINVAL/);
});

const EINVAL = 22;

test.run();
