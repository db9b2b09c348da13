import { mkdirSync, readdirSync, readFileSync, symlinkSync, utimesSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { parsePortMapping, type Attachment } from '../../../conflist/attachment.ts';
import { parseNetworkList } from '../../../conflist/network-list.ts';
import { addNetwork, checkNetwork, deleteNetwork, type Runtime } from '../../../conflist/runtime.ts';
import { sh } from '../../e2e/support/client-host.ts';
import { binDir } from '../../support/executables.ts';
import { suite } from '../../support/suite.ts';
import { thrown } from '../../support/thrown.ts';

/**
 * A node on which the executable of one plugin is missing: each ADD of Nomad's list fails, and the DEL after it stops at the missing
 * plugin before it reaches bridge, as libcni's does.
 */
const test = suite('a plugin of the list is missing', { limit: 60 });

const STORE = '/var/run/cni/nomad';
const file = resolve(import.meta.dirname, '../../../conflist/nomad-tproxy.conflist');
/** Five usable addresses. */
const list = parseNetworkList(readFileSync(file, 'utf8').replace('172.26.64.0/20', '172.26.64.0/29'), file);

test('failed ADDs exhaust a /29; ADD reclaims their leases when they are a minute old, and not that of a running container', () => {
  sh('iptables -N NOMAD-ADMIN; ip6tables -N NOMAD-ADMIN');
  const warnings: string[] = [];
  const complete = runtimeWithout('', warnings);
  const living = attachmentOf('living', 9001);
  addNetwork(complete, list, living);
  for (const [at, missing] of ['consul-cni', 'portmap', 'firewall', 'consul-cni'].entries()) {
    const runtime = runtimeWithout(missing, warnings);
    const failed = attachmentOf(`failed${at}`, 9002);
    assert.match(
      thrown(() => addNetwork(runtime, list, failed)).message,
      `failed to find plugin "${missing}"`,
    );
    assert.match(thrown(() => deleteNetwork(runtime, list, failed)).message, `"${missing}"`);
    sh(`ip netns del ${failed.containerId}`);
  }
  assert.is(leases().length, 5);

  const next = attachmentOf('next', 9002);
  const { message, details } = thrown(() => addNetwork(complete, list, next));
  assert.match(message, 'no IP addresses available in range set: 172.26.64.1-172.26.64.6');
  assert.is(
    details,
    '5 leased, 4 of them to containers whose ADD failed or is still running; ' +
      'retry in a minute, when ADD frees those of failed ones, or widen the range',
  );
  deleteNetwork(complete, list, next);
  assert.match(
    warnings.splice(0).join('\n'),
    /^portmap: host port 9002\/tcp: taken over from container failed0 .*$/,
  );

  const then = Date.now() / 1000 - 90;
  for (const name of leases()) utimesSync(`${STORE}/${name}`, then, then);
  addNetwork(complete, list, next);
  assert.equal(
    warnings
      .splice(0)
      .flatMap((line) => /reclaimed \S+: container (\S+) no longer exists/.exec(line)?.[1] ?? []),
    [0, 1, 2, 3].map((at) => `failed${at}`),
  );
  assert.equal(
    leases().map((name) => readFileSync(`${STORE}/${name}`, 'utf8')),
    ['living\r\neth0', 'next\r\neth0'],
  );
  for (const attachment of [living, next]) checkNetwork(complete, list, attachment);
  for (const attachment of [living, next]) deleteNetwork(complete, list, attachment);
  assert.equal([leases(), warnings], [[], []]);
});

test.run();

function leases(): string[] {
  return readdirSync(STORE).filter((name) => name.startsWith('172.'));
}

function runtimeWithout(missing: string, warnings: string[]): Runtime {
  const folder = `/opt/without-${missing}`;
  mkdirSync(folder, { recursive: true });
  for (const name of ['loopback', 'bridge', 'host-local', 'firewall', 'portmap', 'consul-cni']) {
    if (name !== missing && !readdirSync(folder).includes(name))
      symlinkSync(`${binDir}/${name}`, `${folder}/${name}`);
  }
  return {
    binDirs: [folder],
    cacheDir: '/var/lib/cni',
    environment: process.env,
    warn: (line) => void warnings.push(line),
  };
}

/** A container with a namespace of its own that publishes a port. */
function attachmentOf(containerId: string, hostPort: number): Attachment {
  sh(`ip netns add ${containerId}`);
  return {
    containerId,
    netns: `/var/run/netns/${containerId}`,
    ifname: 'eth0',
    args: [
      ['IgnoreUnknown', 'true'],
      ['CONSUL_IPTABLES_CONFIG', JSON.stringify({ ProxyUserID: '101', ProxyInboundPort: 20_000 })],
    ],
    capabilityArgs: { portMappings: parsePortMapping(`${hostPort}:80`) },
  };
}
