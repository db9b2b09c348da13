import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import {
  attachmentOfComment,
  masqueradeChain,
  masqueradeComment,
  oldPortmapSourceChain,
  portmapChain,
  portmapComment,
} from '../../../../shared/packetfilter/names.ts';

const test = suite('names of chains and comments');
const attachment = { network: 'net1', containerId: 'cont1' };

test('are those of the reference', () => {
  assert.is(masqueradeChain(attachment), 'CNI-01d424cb2a9303e21c6e971c');
  assert.is(portmapChain(attachment), 'CNI-DN-01d424cb2a9303e21c6e9');
  assert.is(oldPortmapSourceChain(attachment), 'CNI-SN-01d424cb2a9303e21c6e9');
  assert.is(masqueradeComment(attachment), 'name: "net1" id: "cont1"');
  assert.is(portmapComment(attachment), 'dnat name: "net1" id: "cont1"');
});

test("fit Nomad's pattern for the rules of an allocation", () => {
  const chain = masqueradeChain({ network: 'nomad', containerId: '9a8e1b52-97d9-4b8c-bb3d-0e0e7c1d2f3a' });
  assert.match(chain, /^CNI-[0-9a-f]{24}$/);
});

test('a comment names its attachment', () => {
  assert.equal(attachmentOfComment(masqueradeComment(attachment)), attachment);
  assert.equal(attachmentOfComment(portmapComment(attachment)), attachment);
  assert.is(attachmentOfComment('CNI portfwd requiring masquerade'), undefined);
});

test('a long comment is truncated as iptables truncates the reference’s', () => {
  const comment = portmapComment({ network: 'net1', containerId: 'x'.repeat(300) });
  assert.is(comment.length, 255);
  assert.match(comment, /^dnat name: "net1" id: "x+\.\.$/);
});

test.run();
