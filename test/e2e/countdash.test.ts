import { createServer } from 'node:net';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { suite } from '../support/suite.ts';
import { HOST, makeClientHost, OUTSIDE, sh, traces } from './support/client-host.ts';
import { countdashOnce, RunningExample } from './support/example.ts';

/** The example from outside: what it prints, what its page says, and that the host is afterwards as it was before. */
const test = suite('countdash', { limit: 300 });

let before = '';

/** Beside {@link traces}: settings, routes, and processes that should have ended. */
function everything(): string {
  const settings = sh(`
    cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding
    ip -4 route show table all; ip -6 route show table all | grep -v -e fe80: -e ff00:; ip rule
    ls -A /run /etc/netns 2>/dev/null | grep -v -e '^netns$' -e '^xtables.lock$' || true`);
  return [traces(), settings, ...processesOf('countdash-child').map(({ words }) => words)].join('');
}

/** The processes of this host whose command line holds these words. */
function processesOf(wanted: string): { pid: number; words: string }[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => ({ pid: Number(name), words: readCommandLine(name) }))
    .filter(({ words }) => words.includes(wanted));
}

function readCommandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}

test.before(() => {
  makeClientHost();
  sh('iptables -P FORWARD DROP; iptables -A INPUT -p tcp --dport 23 -j DROP');
  before = everything();
});

const variants: [title: string, options: string[], said: RegExp][] = [
  ['transparent proxy', [], /the counter rises: 1, 2, 3/],
  ['manual upstream', ['--upstreams'], /count-api on the dashboard's own port 8080: "count":4/],
  ['an intention that denies', ['--deny'], /count-dashboard -> count-api denied/],
  ['both families', ['--dual-stack'], /the page at fd77:\S+ port 9002/],
  ['another port', ['--port', '9010'], /the page at 127\.0\.0\.1 port 9010/],
];

for (const [title, options, said] of variants) {
  test(`--once, ${title}: everything holds and nothing is left`, () => {
    const { exitCode, output } = countdashOnce(...options);
    assert.is(exitCode, 0, output);
    assert.match(output, said);
    assert.match(output, /(\d+) of \1 hold/);
    assert.not.match(output, 'FAIL');
    assert.match(output, 'nothing is left');
    assert.not.match(output, 'changed on this host');
    assert.not.match(output, 'had to be killed');
    assert.is(everything(), before);
  });
}

test('the page counts for a machine outside, until Ctrl-C, of which a second one changes nothing', async () => {
  const example = new RunningExample();
  const page = await example.page();
  assert.is(page, `http://${HOST.ipv4}:9002`);
  const count = (): number => {
    const text = sh(`ip netns exec ${OUTSIDE.name} curl -sS --noproxy '*' -m 10 ${page}/count`);
    return (JSON.parse(text) as { count: number }).count;
  };
  const [first, second] = [count(), count()];
  assert.ok(second > first, `${first}, ${second}`);
  for (const line of [
    /bridge weft-demo0 172\.27\.90\.1/,
    /namespace weft-demo-api/,
    /240\.0\.0\.1/,
    /127\.0\.0\.1:15001/,
  ]) {
    assert.match(example.output, line);
  }
  example.child.kill('SIGINT');
  await example.says(/stopping/);
  example.child.kill('SIGINT');
  example.child.kill('SIGTERM');
  assert.is(await example.ended, 0, example.output);
  assert.match(example.output, 'nothing is left');
  assert.is(everything(), before);
});

test('Ctrl-C while it starts ends it as cleanly', async () => {
  const example = new RunningExample();
  await example.says(/group "api" connected/);
  example.child.kill('SIGINT');
  assert.is(await example.ended, 130, example.output);
  assert.is(everything(), before);
});

test('when one of its processes dies, it takes everything away and fails', async () => {
  const example = new RunningExample();
  await example.page();
  const [sidecar] = processesOf('countdash-child sidecar');
  if (sidecar === undefined) throw new Error('no sidecar');
  process.kill(sidecar.pid, 'SIGKILL');
  assert.is(await example.ended, 1, example.output);
  assert.match(example.output, /FAIL {2}the sidecar of count-(api|dashboard) ended \(SIGKILL\)/);
  assert.is(everything(), before);
});

test('killed at once it leaves no process, and the next run cleans up the rest', async () => {
  const example = new RunningExample();
  await example.page();
  const second = countdashOnce();
  assert.is(second.exitCode, 1);
  assert.match(second.output, `the example runs already, as process ${example.child.pid}`);
  example.child.kill('SIGKILL');
  await example.ended;
  for (const deadline = Date.now() + 10_000; processesOf('countdash-child').length > 0;) {
    if (Date.now() > deadline) assert.unreachable('its processes live on');
    await new Promise((done) => setTimeout(done, 50));
  }
  assert.ok(existsSync('/sys/class/net/weft-demo0'));
  const { exitCode, output } = countdashOnce();
  assert.is(exitCode, 0, output);
  assert.match(output, 'cleaning up after an earlier run that was killed');
  assert.is(everything(), before);
});

test('of several that start at once one runs, and the others take nothing of it away', async () => {
  const examples = Array.from({ length: 3 }, () => new RunningExample('--once'));
  const codes = await Promise.all(examples.map(({ ended }) => ended));
  assert.equal([...codes].sort(), [0, 1, 1], examples.map(({ output }) => output).join('\n'));
  for (const { output } of examples.filter((_, index) => codes[index] === 1))
    assert.match(
      output,
      /the example runs already, as process|another call of the example is starting or ending/,
    );
  assert.is(everything(), before);
});

test('a port that is taken is refused by name, and nothing is touched', async () => {
  const server = createServer();
  await new Promise<void>((done) => server.listen(9002, '127.0.0.1', done));
  const { exitCode, output } = countdashOnce();
  assert.is(exitCode, 1);
  assert.match(output, new RegExp(`tcp port 9002 is held by process ${process.pid} .*--port`));
  await new Promise((done) => server.close(done));
  assert.is(everything(), before);
});

test('a port that a container engine maps is refused, too', () => {
  sh('iptables -t nat -A PREROUTING -p tcp --dport 9002 -j DNAT --to-destination 198.51.100.1:80');
  const { exitCode, output } = countdashOnce();
  sh('iptables -t nat -F PREROUTING');
  assert.is(exitCode, 1);
  assert.match(output, /port 9002 is mapped to a container already, by the rule ".*198\.51\.100\.1/);
  assert.is(everything(), before);
});

test('a host that drops forwarded traffic gets an error, and stays as it was', () => {
  sh('iptables -A INPUT -i weft-demo0 -j DROP');
  const dropping = everything();
  const { exitCode, output } = countdashOnce();
  assert.is(exitCode, 1);
  assert.match(
    output,
    /FAIL {2}count-api\.virtual\.consul has no address .*firewall drop .* port 8600 from 172\.27\.90\.0\/24/,
  );
  assert.match(output, 'nothing is left');
  assert.is(everything(), dropping);
  sh('iptables -D INPUT -i weft-demo0 -j DROP');
});

test('rules of a Nomad on the same host are left as they are', () => {
  sh(`iptables -N NOMAD-ADMIN; iptables -A NOMAD-ADMIN -o nomad -d 172.26.64.0/20 -j ACCEPT
    iptables -N CNI-FORWARD; iptables -A CNI-FORWARD -m comment --comment 'CNI firewall plugin admin overrides' -j NOMAD-ADMIN
    iptables -I FORWARD -m comment --comment 'CNI firewall plugin rules' -j CNI-FORWARD
    iptables -A CNI-FORWARD -s 172.26.64.9/32 -j ACCEPT`);
  const withNomad = everything();
  const { exitCode, output } = countdashOnce('--upstreams');
  assert.is(exitCode, 0, output);
  assert.is(everything(), withNomad);
  sh(
    'iptables -F FORWARD; iptables -F CNI-FORWARD; iptables -F NOMAD-ADMIN; iptables -X CNI-FORWARD; iptables -X NOMAD-ADMIN',
  );
});

test.run();
