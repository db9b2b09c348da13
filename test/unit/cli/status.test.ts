/** `weft status` as a text of any width. */
import * as assert from 'uvu/assert';
import type { Status } from '../../../cli/status/report.ts';
import { statusText } from '../../../cli/status/status-text.ts';
import { painter } from '../../../cli/terminal.ts';
import { suite } from '../../support/suite.ts';

const test = suite('weft status: text');
const plain = painter(false);

const ATTACHMENT: Status['attachments'][number] = {
  network: 'nomad',
  container: '9a8e1b52-0b0a-4d5e-8c53-5d1f3c6c1b11',
  interface: 'eth0',
  job: 'countdash',
  group: 'dashboard',
  addresses: ['172.26.64.2', 'fd00::2'],
  ports: ['tcp', 'udp'].map((protocol) => ({ protocol, host: 9002, container: 80, range: 1, address: '' })),
  backend: 'iptables',
  addedAt: '2026-11-27T08:00:00.000Z',
  ageSeconds: 3700,
  state: 'running',
  reason: 'network namespace /var/run/netns/x exists',
  health: 'ok',
  problems: [],
  warnings: [],
};

const STATUS: Status = {
  version: '2.0.0',
  time: '2026-11-27T09:01:40.000Z',
  networks: [
    {
      name: 'nomad',
      bridge: 'nomad',
      attachments: 3,
      pools: [
        { subnet: '172.26.64.0/20', size: 4093, used: 3 },
        { subnet: 'fd00::/64', size: null, used: 1 },
      ],
    },
  ],
  attachments: [
    ATTACHMENT,
    {
      ...ATTACHMENT,
      container: '9a8e1b52-ffff-4d5e-8c53-5d1f3c6c1b11',
      group: 'api',
      ports: [{ protocol: 'udp', host: 53, container: 53, range: 1, address: '192.0.2.1' }],
      health: 'failed',
      problems: ['firewall: firewall rules are not complete: chain CNI-FORWARD is missing'],
    },
    {
      ...ATTACHMENT,
      container: 'box',
      job: null,
      group: null,
      ports: [],
      state: 'gone',
      health: 'unchecked',
      reason: 'network namespace /run/netns/box does not exist',
      ageSeconds: 9,
    },
  ],
  policy: { isolation: 'allocation', deny: ['169.254.169.254/32'], allow: [] },
  agent: { state: 'not running', release: null },
  drift: [],
  problems: [],
};

test('one screen', () => {
  assert.is(
    statusText(STATUS, plain, undefined),
    `Weft     2.0.0
Agent    not running
Policy   isolation allocation, egress not to 169.254.169.254/32
Drift    none

NETWORK  BRIDGE  ATTACHMENTS  SUBNET          USED  FREE
nomad    nomad   3            172.26.64.0/20  3     4090
                              fd00::/64       1     plenty

ALLOC       JOB        GROUP      ADDRESS      PORTS             BACK END  AGE    HEALTH
9a8e1b52-0  countdash  dashboard  172.26.64.2  9002->80          iptables  1h 1m  ok
9a8e1b52-f  countdash  api        172.26.64.2  192.0.2.1:53/udp  iptables  1h 1m  failed
box         -          -          172.26.64.2  -                 iptables  9s     gone

error  9a8e1b52-ffff-4d5e-8c53-5d1f3c6c1b11: firewall: firewall rules are not complete: chain CNI-FORWARD is missing
warning  box: network namespace /run/netns/box does not exist
`,
  );
});

test('the table fits the terminal; addresses, ages and health are never cut', () => {
  const table = statusText(STATUS, plain, 80).split('\n').slice(9, 13);
  assert.ok(
    table.every((line) => line.length <= 80),
    table.join('\n'),
  );
  assert.match(table[2] ?? '', /^9a8e1b52-f  countdash  api .* 192\.0\.2…  iptables  1h 1m  failed$/);
});

test('colours on a terminal only, and not with NO_COLOR', () => {
  const onTerminal = painter(true);
  assert.match(statusText(STATUS, onTerminal, undefined), /\x1b\[31mfailed\x1b\[0m/);
  process.env['NO_COLOR'] = '1';
  assert.not.match(statusText(STATUS, painter(true), undefined), '\x1b');
  delete process.env['NO_COLOR'];
});

test('nothing on the node', () => {
  const empty = {
    ...STATUS,
    networks: [],
    attachments: [],
    policy: null,
    problems: ['weft.json: unknown key "x"'],
  };
  assert.match(
    statusText(empty, plain, 40),
    /Policy   unknown\nDrift    none\n\nno attachments\n\nerror  weft\.json: unknown key "x"\n$/,
  );
});

test.run();
