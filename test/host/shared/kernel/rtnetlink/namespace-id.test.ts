import * as assert from 'uvu/assert';
import { openNamespace, openOwnNamespace } from '../../../../../shared/kernel/namespace.ts';
import { createVeth, linkByName, namespaceId } from '../../../../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../../../../shared/kernel/rtnetlink/rtnetlink.ts';
import { suite } from '../../../../support/suite.ts';
import { kernelError, makeNamespace, run } from '../../../../support/kernel.ts';

const test = suite('namespace ids');
const own = Rtnetlink.open();

test('a namespace has no number before a link leads there, then that of its links', () => {
  using one = openNamespace(makeNamespace('one'));
  using two = openNamespace(makeNamespace('two'));
  assert.is(namespaceId(own, one), undefined);
  createVeth(own, { name: 'to-one', peer: { name: 'eth0', namespaceFd: one.fd } });
  createVeth(own, { name: 'to-two', peer: { name: 'eth0', namespaceFd: two.fd } });
  assert.type(namespaceId(own, one), 'number');
  assert.is(namespaceId(own, one), linkByName(own, 'to-one')?.peerNamespaceId);
  assert.is(namespaceId(own, two), linkByName(own, 'to-two')?.peerNamespaceId);
  assert.is.not(namespaceId(own, one), namespaceId(own, two));
  assert.match(run('ip', 'netns', 'list'), `one (id: ${namespaceId(own, one)})`);
});

test('one’s own namespace has none, and what is no namespace is refused', () => {
  using home = openOwnNamespace();
  assert.is(namespaceId(own, home), undefined);
  const error = kernelError('EBADF', () => namespaceId(own, { ...home, fd: 9999 }));
  assert.match(error.message, 'RTM_GETNSID');
});

test.run();
