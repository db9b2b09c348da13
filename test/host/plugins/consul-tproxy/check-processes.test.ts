/** What CHECK sees in the processes of an allocation: whether a proxy serves, and who is taken for it by mistake. */
import { readFileSync, writeFileSync } from 'node:fs';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import { DAMAGES, harm } from '../../../support/tproxy-damages.ts';
import {
  BACKENDS,
  fails,
  makeLegacyFolder,
  newNamespace,
  REQUEST,
  succeeds,
} from '../../../support/tproxy.ts';

const test = suite('consul-tproxy: CHECK and processes', { limit: 60 });

test.before(makeLegacyFolder);

const children: ChildProcess[] = [];
test.after(() => {
  for (const child of children) child.kill('SIGKILL');
});

test("another uid or port in the node's configuration is news, as long as a proxy serves behind the rules", async () => {
  const netns = newNamespace();
  succeeds('ADD', { netns });
  const request = { ...REQUEST, ProxyUserID: '5995', ProxyOutboundPort: 15002 };
  assert.match(fails('CHECK', { netns, request }).details ?? '', /--uid-owner 5995.*--to-ports 15002/);
  await serve(netns, 101, 15001);
  const warnings = succeeds('CHECK', { netns, request }).join('\n');
  assert.match(
    warnings,
    /CONSUL_PROXY_REDIRECT.*missing -p tcp -j REDIRECT --to-ports 15002; not planned -p tcp -j REDIRECT --to-ports 15001/,
  );
  // Inbound is the allocation's own port: that cannot be news.
  assert.is(fails('CHECK', { netns, request: { ...request, ProxyInboundPort: 9998 } }).code, 999);
  assert.is(fails('CHECK', { netns, request, config: { check: 'strict' } }).code, 999);
});

for (const on of BACKENDS) {
  test(`${on.name}: every damage is one while the proxy runs, too`, async () => {
    for (const damage of DAMAGES) {
      const netns = newNamespace();
      succeeds('ADD', { netns, on });
      const proxy = await serve(netns, 101, 15001);
      harm(netns, on, damage);
      const { msg, details } = fails('CHECK', { netns, on });
      assert.match(`${msg} ${details ?? ''}`, damage.says);
      proxy.kill('SIGKILL');
    }
  });
}

test("a program that runs as the proxy's user causes a warning, the proxy itself does not", async () => {
  const netns = newNamespace();
  succeeds('ADD', { netns });
  await serve(netns, 101, 15001);
  assert.equal(succeeds('CHECK', { netns }), []);
  const clash = spawn(
    'ip',
    ['netns', 'exec', netns, 'setpriv', '--reuid=101', '--clear-groups', 'sleep', '600'],
    { stdio: 'ignore' },
  );
  children.push(clash);
  await untilRunning(clash, 'sleep');
  const [warning = ''] = succeeds('CHECK', { netns });
  assert.match(
    warning,
    new RegExp(`not in the mesh: sleep \\(pid ${clash.pid}, uid 101\\) runs as the proxy's user`),
  );
});

test('a process counts as the user that the rules see, whatever its own user namespace calls it', async () => {
  const netns = newNamespace();
  succeeds('ADD', { netns });
  await serve(netns, 101, 15001);
  // Root of a rootless container that user 101 runs: the rules let it through.
  const rootless = spawn(
    'ip',
    `netns exec ${netns} setpriv --reuid=101 --clear-groups unshare --user --map-root-user sleep 600`.split(
      ' ',
    ),
    { stdio: 'ignore' },
  );
  // User 101 of a container with users of its own: 100101 to the rules, which capture it.
  const container = spawn('ip', ['netns', 'exec', netns, 'unshare', '--user', 'sleep', '600'], {
    stdio: 'ignore',
  });
  children.push(rootless, container);
  await untilRunning(rootless, 'sleep');
  await untilRunning(container, 'sleep');
  for (const map of ['uid_map', 'gid_map']) writeFileSync(`/proc/${container.pid}/${map}`, '0 100000 65536');
  const captured = spawn(
    'nsenter',
    `-t ${container.pid} --user --net setpriv --reuid=101 --clear-groups sleep 600`.split(' '),
    { stdio: 'ignore' },
  );
  children.push(captured);
  await untilRunning(captured, 'sleep');
  assert.match(readFileSync(`/proc/${captured.pid}/status`, 'utf8'), /^Uid:\t100101\t/m);
  const [warning = '', ...others] = succeeds('CHECK', { netns });
  assert.match(warning, `not in the mesh: sleep (pid ${rootless.pid}, uid 101) runs as the proxy's user`);
  assert.equal(others, []);
});

test.run();

async function serve(netns: string, uid: number, port: number): Promise<ChildProcess> {
  const program = resolve(import.meta.dirname, 'programs/listen.ts');
  const spec = JSON.stringify([{ protocol: 'tcp', host: '127.0.0.1', port, label: 'proxy' }]);
  const words = [
    'netns',
    'exec',
    netns,
    process.execPath,
    '--no-warnings',
    '--experimental-ffi',
    program,
    String(uid),
    spec,
  ];
  const child = spawn('ip', words, { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  await once(child.stdout, 'data');
  return child;
}

/** `ip netns exec` and setpriv become the program they start. */
async function untilRunning({ pid }: ChildProcess, name: string): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (readFileSync(`/proc/${pid}/comm`, 'utf8').trim() !== name) {
    assert.ok(Date.now() < deadline, `${name} never started`);
    await new Promise((next) => setTimeout(next, 10));
  }
}
