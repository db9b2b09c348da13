import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { LAUNCHERS, launchersMissing, release } from '../../../support/node-agent.ts';
import {
  LISTS,
  makeHost,
  PLUGINS,
  runDoctor,
  script,
  sh,
  suiteOfFaults,
  writeList,
  type Fault,
} from '../../../support/doctor.ts';
import * as assert from 'uvu/assert';

const OTHER = '/opt/other-plugins';
const version = (name: string, text = 'v1.9.1') => `echo "CNI ${name} plugin ${text}"`;
const restore = (name: string) => () => script(`${PLUGINS}/${name}`, version(name));
const list = (file: string, text: string) => () => writeFileSync(`${LISTS}/${file}`, text);
const bridge = {
  type: 'bridge',
  bridge: 'blue0',
  ipam: { type: 'host-local', ranges: [[{ subnet: '10.1.0.0/24' }]] },
};
const lists: readonly Fault[] = [
  {
    fault: 'a list that is no JSON',
    make: list('torn.conflist', '{ "name": "torn", "plugins": ['),
    id: 'conflist-invalid',
    where: `${LISTS}/torn.conflist`,
    remedy: `rm ${LISTS}/torn.conflist`,
    printed: /systemctl reload nomad$/,
  },
  {
    fault: 'a list whose plugin rejects its configuration',
    make: () => void writeList('range', { plugins: [{ ...bridge, hairpinMode: 'yes', bridge: 'a/b' }] }),
    id: 'conflist-invalid',
    where: `${LISTS}/range.conflist`,
    what: /bridge of network range.*hairpinMode/,
    remedy: `rm ${LISTS}/range.conflist`,
  },
  {
    fault: 'a list with a plugin that is not installed',
    make: () => void writeList('absent', { plugins: [bridge, { type: 'tuning' }] }),
    id: 'conflist-plugin',
    where: `${LISTS}/absent.conflist`,
    what: /plugin tuning/,
    remedy: `rm ${LISTS}/absent.conflist`,
  },
  {
    fault: 'two lists with one name',
    make: () => {
      writeList('twin', { plugins: [bridge] });
      sh(`cp ${LISTS}/twin.conflist ${LISTS}/twin-again.conflist`);
    },
    id: 'conflist-duplicate',
    where: `${LISTS}/twin.conflist`,
    remedy: `rm ${LISTS}/twin-again.conflist`,
    printed: new RegExp(`rm ${LISTS}/twin.conflist`),
  },
  {
    fault: 'portmap without its capability',
    make: () => void writeList('ports', { plugins: [bridge, { type: 'portmap', snat: true }] }),
    id: 'conflist-ports',
    where: `${LISTS}/ports.conflist`,
    remedy: () =>
      void writeList('ports', {
        plugins: [bridge, { type: 'portmap', snat: true, capabilities: { portMappings: true } }],
      }),
    printed: /"capabilities": \{ "portMappings": true \}/,
  },
  {
    fault: 'an unknown key in weft.json',
    make: () => {
      mkdirSync('/etc/weft', { recursive: true });
      writeFileSync('/etc/weft/weft.json', '{ "bakend": "nftables" }');
    },
    id: 'weft-json',
    where: '/etc/weft/weft.json',
    what: /unknown key "bakend"; known keys/,
    remedy: 'rm /etc/weft/weft.json',
    printed: /rm \/etc\/weft\/weft.json$/,
  },
];

const test = suiteOfFaults('weft doctor: plugins', {
  before: () => {
    makeHost();
    // weft install also installs the command.
    sh('mount -t tmpfs tmpfs /usr/local/bin');
  },
  doctor: ['--cni-path', `${PLUGINS}:${OTHER}`],
  rounds: [
    [
      {
        fault: 'a plugin is missing',
        make: `rm ${PLUGINS}/loopback`,
        id: 'plugin-missing',
        where: `${PLUGINS}/loopback`,
        remedy: restore('loopback'),
        printed: /^weft install --bin-dir \/opt\/plugins$/,
      },
      {
        fault: 'a plugin was copied without its executable bit',
        make: `chmod 644 ${PLUGINS}/host-local`,
        id: 'plugin-not-executable',
        where: `${PLUGINS}/host-local`,
        what: /mode 0644/,
      },
      {
        fault: 'a plugin that everyone may change',
        make: `chmod 777 ${PLUGINS}/firewall`,
        id: 'plugin-writable',
        where: `${PLUGINS}/firewall`,
        what: /mode 0777/,
      },
      {
        fault: "a distribution's build without a version",
        make: () => script(`${PLUGINS}/portmap`, version('portmap', 'version unknown')),
        id: 'plugin-version',
        where: `${PLUGINS}/portmap`,
        what: /output "CNI portmap plugin version unknown"/,
        remedy: restore('portmap'),
      },
      {
        fault: 'consul-cni of 2024',
        make: () => script(`${PLUGINS}/consul-cni`, version('consul-cni', 'v1.4.1')),
        id: 'consul-cni-too-old',
        where: `${PLUGINS}/consul-cni`,
        what: /v1\.4\.1.*1\.4\.2/,
        remedy: restore('consul-cni'),
      },
      {
        fault: 'a second copy in another directory of cni_path',
        make: () => {
          mkdirSync(OTHER);
          script(`${OTHER}/bridge`, version('bridge'));
        },
        id: 'plugin-shadowed',
        where: `${OTHER}/bridge`,
        what: /Nomad runs \/opt\/plugins\/bridge/,
      },
      ...lists,
    ],
    [
      {
        fault: 'a plugin that hangs',
        make: () => script(`${PLUGINS}/loopback`, 'sleep 60'),
        id: 'plugin-slow',
        where: `${PLUGINS}/loopback`,
        remedy: restore('loopback'),
      },
      {
        fault: 'bridge from before CHECK',
        make: () => script(`${PLUGINS}/bridge`, version('bridge', 'v1.2.0')),
        id: 'plugin-too-old',
        where: `${PLUGINS}/bridge`,
        remedy: restore('bridge'),
      },
      {
        fault: 'plugins of two releases',
        make: () => undefined,
        id: 'plugins-mixed',
        where: PLUGINS,
        what: /bridge v1\.2\.0/,
        remedy: () => undefined,
      },
      {
        fault: 'a directory that everyone may write to',
        make: `chmod 777 ${OTHER}`,
        id: 'plugin-writable',
        where: OTHER,
      },
    ],
    // Last: it replaces the prepared plugins by those of Weft.
    [
      {
        fault: 'a plugin is missing, and the printed command installs it',
        make: `rm ${PLUGINS}/loopback; rm -r ${OTHER}`,
        id: 'plugin-missing',
        where: `${PLUGINS}/loopback`,
      },
    ],
  ],
});

test('no directory of cni_path', async () => {
  const { report, status } = await runDoctor('--json', '--cni-path', '/opt/nowhere:/opt/neither');
  assert.is(status, 2);
  assert.equal(
    report.findings.map(({ id, what }) => [id, what]),
    [['plugin-path', '/opt/nowhere: does not exist; /opt/neither: does not exist']],
  );
});

if (launchersMissing !== undefined) test.skip('agent and launchers', launchersMissing);
else
  test('agent and launchers: none running, another release, the same release', async () => {
    const ids = async () =>
      (await runDoctor('--json', '--cni-path', LAUNCHERS)).report.findings.map(({ id }) => id);
    assert.equal(await ids(), ['agent-not-running']);
    mkdirSync('/run/weft', { recursive: true });
    const old = await greeting(`weft-agent 1 ${'0'.repeat(32)}\n`);
    assert.equal(await ids(), ['agent-release']);
    old.close();
    const silent = await greeting('');
    assert.equal(await ids(), ['agent-not-running']);
    silent.close();
    const own = await greeting(`weft-agent 1 ${release()}\n`);
    assert.equal(await ids(), []);
    own.close();
  });

test.run();

async function greeting(line: string): Promise<Server> {
  rmSync('/run/weft/agent.sock', { force: true });
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.write(line);
  });
  await new Promise<void>((resolve) => server.listen('/run/weft/agent.sock', resolve));
  return server;
}
