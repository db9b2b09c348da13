/** `weft countdash --nomad` with programs in place of nomad, consul and envoy: what it starts, asks and stops, and in which order. */
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { countdashOnce, RunningExample, type Outcome } from '../../../e2e/support/example.ts';
import { HOST, makeClientHost, sh, traces } from '../../../e2e/support/client-host.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('countdash --nomad', { limit: 60 });

const FAKES = '/opt/fakes';
const FOLDER = '/run/weft-countdash';

/**
 * Each call is a line of the journal. Agents serve their HTTP API until SIGTERM; nomad's also the page, from `job run` to `job stop`, when
 * its allocation comes to an end. A file FAKES/fail-NAME-WORDS makes a call fail.
 */
const FAKE = `#!${process.execPath}
const fs = require('fs'), http = require('http');
const name = require('path').basename(process.argv[1]), args = process.argv.slice(2);
const words = args.filter((word) => !word.startsWith('-')).map((word) => word.replace(/.*\\//, '')).join(' ');
const say = (text) => fs.appendFileSync('${FAKES}/journal', name + ' ' + text + '\\n');
const is = (file) => fs.existsSync('${FAKES}/' + file);
const set = (file, on) => on ? fs.writeFileSync('${FAKES}/' + file, '') : fs.rmSync('${FAKES}/' + file, { force: true });
say(words);
if (is('fail-' + name + '-' + words.replaceAll(' ', '-'))) { console.error('no ' + words + ' today'); process.exit(1); }
if (name === 'nomad' && words.startsWith('job run')) { fs.writeFileSync('${FAKES}/job', JSON.stringify(args)); set('running', true); }
if (name === 'nomad' && words.startsWith('job stop')) set('running', false);
if (words !== 'agent') process.exit(0);
const begun = Date.now();
let count = 0;
const answers = {
  '/v1/status/leader': () => Date.now() - begun < 500 ? '' : '127.0.0.1:8300',
  '/v1/nodes': () => Date.now() - begun < 500 ? [] : [{ Status: 'ready' }],
  '/v1/allocations': () => is('job') ? [{ ID: 'a1', JobID: 'countdash', ClientStatus: is('running') ? 'running' : 'complete' }] : [],
  '/count': () => is('running') ? { count: ++count } : undefined,
};
const serve = (port, host) => http.createServer(({ url }, response) => {
  const answer = answers[url]?.();
  response.writeHead(answer === undefined ? 404 : 200).end(JSON.stringify(answer));
}).listen(port, host);
serve(name === 'nomad' ? 4646 : 8500, '127.0.0.1');
if (name === 'nomad') serve(9002, '${HOST.ipv4}');
process.on('SIGTERM', () => { say('SIGTERM'); process.exit(0); });
`;

const START = [
  'consul agent',
  'consul config write intention.hcl',
  'nomad agent',
  'nomad job run raw-exec.nomad.hcl',
];
const STOP = ['nomad job stop countdash', 'nomad system gc', 'nomad SIGTERM', 'consul SIGTERM'];
let before = '';

function install(...names: string[]): void {
  rmSync(FAKES, { recursive: true, force: true });
  mkdirSync(FAKES);
  for (const name of names) writeFileSync(`${FAKES}/${name}`, FAKE, { mode: 0o755 });
}

const journal = (): string[] => readFileSync(`${FAKES}/journal`, 'utf8').trim().split('\n');

function succeededCleanly({ output }: Outcome): void {
  assert.match(output, 'nothing is left');
  assert.not.match(output, 'changed on this host');
  assert.is(traces(), before);
  assert.not.ok(existsSync(FOLDER));
}

test.before(() => {
  makeClientHost();
  sh('grep -q ^[^:]*:[^:]*:101: /etc/passwd || echo envoy:x:101:101::/:/bin/false >>/etc/passwd');
  process.env['PATH'] = `${FAKES}:${process.env['PATH'] ?? ''}`;
  before = traces();
});

test('a missing program, a taken port and an option that the job decides: an error that names it, and nothing changes', () => {
  for (const missing of ['nomad', 'consul', 'envoy']) {
    install(...['nomad', 'consul', 'envoy'].filter((name) => name !== missing));
    const { exitCode, output } = countdashOnce('--nomad');
    assert.is(exitCode, 1, output);
    assert.match(output, `"${missing}" is not in PATH`);
    assert.match(output, 'docs/get-started/nomad.md');
    assert.equal(readdirSync(FAKES).length, 2, 'no program was started');
  }
  const { exitCode, output } = countdashOnce('--nomad', '--deny');
  assert.is(exitCode, 2);
  assert.match(output, '--deny cannot be combined with --nomad');
  assert.is(traces(), before);
});

test('starts Consul, then Nomad, then the job; asserts that the page counts; stops them in reverse', () => {
  install('nomad', 'consul', 'envoy');
  const outcome = countdashOnce('--nomad');
  assert.is(outcome.exitCode, 0, outcome.output);
  assert.equal(journal(), [...START, ...STOP]);
  const words = JSON.parse(readFileSync(`${FAKES}/job`, 'utf8')) as string[];
  assert.ok(words.includes(`-var=envoy=${FAKES}/envoy`));
  assert.ok(
    words.some((word) => /^-var=counting_service=\[".*\/weft","countdash-child","count-api"\]$/.test(word)),
  );
  succeededCleanly(outcome);
});

test('the configuration: on loopback, DNS on the address of the host, the bridge and subnet of the example', async () => {
  install('nomad', 'consul', 'envoy');
  const example = new RunningExample('--nomad');
  assert.is(await example.page(), `http://${HOST.ipv4}:9002`);
  const read = (name: string) =>
    JSON.parse(readFileSync(`${FOLDER}/nomad/${name}`, 'utf8')) as Record<string, unknown>;
  assert.is((read('consul.json')['addresses'] as { dns: string }).dns, HOST.ipv4);
  const { bind_addr: address, client } = read('nomad.json');
  assert.is(address, '127.0.0.1');
  assert.is((client as { bridge_network_name: string }).bridge_network_name, 'weft-demo0');
  assert.is((client as { bridge_network_subnet: string }).bridge_network_subnet, '172.27.90.0/24');
  // What Nomad leaves mounted in an allocation's directory.
  sh(`mkdir -p ${FOLDER}/nomad/data/secrets; mount -t tmpfs tmpfs ${FOLDER}/nomad/data/secrets`);
  example.child.kill('SIGINT');
  assert.is(await example.ended, 0, example.output);
  assert.equal(journal().slice(START.length), STOP);
  succeededCleanly({ exitCode: 0, output: example.output });
});

test('a step that fails, or an agent that ends: the error says so, and what was started is stopped', async () => {
  const rows: [fail: string, says: RegExp, journal: string[]][] = [
    ['consul-agent', /FAIL {2}consul ended \(exit code 1\).*\n.*no agent today/, ['consul agent']],
    [
      'nomad-job-run-raw-exec.nomad.hcl',
      /FAIL {2}nomad job run .* failed: no job run/,
      [...START, 'nomad SIGTERM', 'consul SIGTERM'],
    ],
  ];
  for (const [fail, says, calls] of rows) {
    install('nomad', 'consul', 'envoy');
    writeFileSync(`${FAKES}/fail-${fail}`, '');
    const outcome = countdashOnce('--nomad');
    assert.is(outcome.exitCode, 1, outcome.output);
    assert.match(outcome.output, says);
    assert.equal(journal(), calls);
    succeededCleanly(outcome);
  }
  install('nomad', 'consul', 'envoy');
  const example = new RunningExample('--nomad');
  await example.page();
  sh('pkill -KILL -f "fakes/[c]onsul agent"');
  assert.is(await example.ended, 1, example.output);
  assert.match(example.output, /FAIL {2}consul ended \(SIGKILL\)/);
  assert.equal(journal().slice(START.length), STOP.slice(0, -1));
  succeededCleanly({ exitCode: 1, output: example.output });
});

test.run();
