import { writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { executable } from '../../../support/executables.ts';
import { succeed, variables } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import { cleanHost, ipam, makeNamespace, network } from './host.ts';

const test = suite('bridge: what an ADD costs the kernel');
test.beforeEach(cleanHost);
test.after(cleanHost);

/** rtnetlink requests of one call, by number of messages; children and other protocols are left out. */
function requests(command: string, number: number, config: object): string[] {
  writeFileSync('/run/config.json', JSON.stringify(config));
  const attachment = variables({ id: `cont${number}`, netns: `/run/netns/c${number}` });
  const words = 'strace -v -s 4096 -e trace=sendto,execve -o /run/trace';
  const outcome = spawnSync('sh', ['-c', `exec ${words} ${executable('bridge')} < /run/config.json`], {
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...attachment, CNI_COMMAND: command },
    encoding: 'utf8',
  });
  assert.is(outcome.status, 0, outcome.stdout);
  const lines = readFileSync('/run/trace', 'utf8').split('\n');
  assert.is(lines.filter((line) => line.startsWith('execve(')).length, 1, 'a program was started');
  return lines.flatMap((line) =>
    [...line.matchAll(/nlmsg_type=(\w+)/g)].map((found) => TYPES[found[1] ?? ''] ?? found[1] ?? ''),
  );
}

/** strace decodes only sockets of its own namespace. */
const TYPES: Readonly<Record<string, string>> = {
  '0x12': 'RTM_GETLINK',
  '0x13': 'RTM_SETLINK',
  '0x14': 'RTM_NEWADDR',
  '0x16': 'RTM_GETADDR',
  '0x18': 'RTM_NEWROUTE',
};

test('with the bridge there: twelve messages, none of which deletes or moves anything, and no program', () => {
  const config = network({ ipam: ipam(['10.88.0.0/16']) });
  for (const number of [1, 2]) makeNamespace(`c${number}`);
  succeed('bridge', 'ADD', { id: 'cont1', netns: '/run/netns/c1' }, config);
  assert.equal(requests('ADD', 2, config), [
    // the bridge
    'RTM_GETLINK',
    // whether the subnet contains an address of an uplink
    'RTM_GETADDR',
    'RTM_GETLINK',
    // the pair, in one write; its label
    'RTM_NEWLINK',
    'RTM_GETLINK',
    'RTM_SETLINK',
    // what the bridge's addresses are
    'RTM_GETADDR',
    // address, up, route, in one write
    'RTM_NEWADDR',
    'RTM_SETLINK',
    'RTM_NEWROUTE',
    // whether the port forwards; the announcement
    'RTM_GETLINK',
    'RTM_SETLINK',
  ]);
});

test('the first one on a host makes the bridge and gives it its address with five more', () => {
  makeNamespace('c1');
  const sent = requests('ADD', 1, network({ ipam: ipam(['10.88.0.0/16']) }));
  assert.is(sent.length, 17, sent.join(' '));
  assert.equal(
    sent.filter((type) => type === 'RTM_DELLINK'),
    [],
  );
});

test.run();
