import * as assert from 'uvu/assert';
import { createVeth, linkByName, setLink } from '../../../../../shared/kernel/rtnetlink/links.ts';
import { deleteNeighbour, neighbours } from '../../../../../shared/kernel/rtnetlink/neighbours.ts';
import { Rtnetlink } from '../../../../../shared/kernel/rtnetlink/rtnetlink.ts';
import { suite } from '../../../../support/suite.ts';
import { run } from '../../../../support/kernel.ts';

const test = suite('rtnetlink neighbours');
const own = Rtnetlink.open();
let left = 0;
let right = 0;

test.before(() => {
  createVeth(own, { name: 'left', up: true, peer: { name: 'right' } });
  setLink(own, 'right', { up: true });
  left = linkByName(own, 'left')?.index ?? 0;
  right = linkByName(own, 'right')?.index ?? 0;
  run('ip', 'neigh', 'add', '10.1.2.1', 'lladdr', '02:00:00:00:00:01', 'dev', 'left', 'nud', 'reachable');
  run('ip', 'neigh', 'add', 'fd00::1', 'lladdr', '02:00:00:00:00:02', 'dev', 'left', 'nud', 'stale');
  run('ip', 'neigh', 'add', '10.1.2.1', 'lladdr', '02:00:00:00:00:03', 'dev', 'right', 'nud', 'permanent');
});

test('entries are listed by link and family', () => {
  const entry = neighbours(own, { index: left, family: 'ipv4' });
  assert.equal(entry, [
    { index: left, address: '10.1.2.1', family: 'ipv4', mac: '02:00:00:00:00:01', state: 2 },
  ]);
  const six = neighbours(own, { index: left, family: 'ipv6' }).filter(({ address }) => address === 'fd00::1');
  assert.equal(
    six.map(({ mac, state }) => [mac, state]),
    [['02:00:00:00:00:02', 4]],
  );
  assert.equal(
    neighbours(own, { family: 'ipv4' })
      .map(({ index }) => index)
      .sort(),
    [left, right].sort(),
  );
  assert.equal(neighbours(own, { index: 4711 }), []);
});

test('deleting hits one link only, and says whether there was one', () => {
  assert.is(deleteNeighbour(own, { index: left, address: '10.1.2.1' }), true);
  assert.equal(neighbours(own, { index: left, family: 'ipv4' }), []);
  assert.is(neighbours(own, { index: right, family: 'ipv4' }).length, 1);
  assert.is(deleteNeighbour(own, { index: left, address: '10.1.2.1' }), false);
  assert.is(deleteNeighbour(own, { index: right, address: '10.1.2.1' }), true);
  assert.is(deleteNeighbour(own, { index: left, address: 'fd00::1' }), true);
  assert.is(deleteNeighbour(own, { index: left, address: 'fd00::77' }), false);
  assert.is(deleteNeighbour(own, { index: 4711, address: '10.1.2.1' }), false);
});

test.run();
