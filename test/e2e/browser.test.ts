import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { suite } from '../support/suite.ts';
import { makeClientHost, OUTSIDE } from './support/client-host.ts';
import { RunningExample } from './support/example.ts';

/** The page in a real browser on the machine outside: what a person would see counting. */
const test = suite('countdash in a browser', { limit: 240 });

const CHROMIUM = ['/usr/bin/chromium', '/usr/lib/chromium/chromium'].find((file) => existsSync(file));
/** Seconds of the page's own clock, which runs on while nothing is awaited. */
const WATCH_SECONDS = 6;
const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-dev-shm-usage',
  '--no-proxy-server',
];

/** The page's document after a while, as the browser has it. */
function watch(url: string, folder: string): Promise<string> {
  const flags = [
    ...FLAGS,
    `--user-data-dir=${folder}`,
    `--virtual-time-budget=${WATCH_SECONDS * 1000}`,
    '--dump-dom',
    url,
  ];
  const child = spawn('ip', ['netns', 'exec', OUTSIDE.name, CHROMIUM ?? '', ...flags], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { PATH: process.env['PATH'], HOME: folder },
    timeout: 150_000,
    killSignal: 'SIGKILL',
  });
  let document = '';
  child.stdout.on('data', (chunk: Buffer) => (document += chunk.toString()));
  return new Promise((done) => child.once('close', () => done(document)));
}

async function seenBy(
  browserFolder: string,
  ...options: string[]
): Promise<{ document: string; example: RunningExample }> {
  const example = new RunningExample(...options);
  const document = await watch(await example.page(), browserFolder);
  example.child.kill('SIGTERM');
  assert.is(await example.ended, 0, example.output);
  return { document, example };
}

if (CHROMIUM === undefined) {
  test.skip('the counter rises', 'there is no chromium here (Debian and Ubuntu: apt install chromium)');
  test.skip('a refused call is shown', 'there is no chromium here');
} else {
  const folder = mkdtempSync('/tmp/weft-browser-');
  test.before(makeClientHost);
  test.after(() => rmSync(folder, { recursive: true, force: true }));

  test('the counter rises', async () => {
    const { document } = await seenBy(folder);
    const [, seen = ''] = /<span id="seen">([^<]*)</.exec(document) ?? [];
    const counts = seen.split(' ').map(Number);
    assert.ok(counts.length >= 3, `the page saw "${seen}":\n${document.slice(-1500)}`);
    assert.ok(
      counts.every((count, index) => index === 0 || count > (counts[index - 1] ?? Infinity)),
      seen,
    );
    const [, shown] = /<p id="count"[^>]*>([^<]*)</.exec(document) ?? [];
    assert.is(Number(shown), counts.at(-1));
    assert.match(document, /data-state="connected"/);
  });

  test('a refused call is shown', async () => {
    const { document } = await seenBy(folder, '--deny');
    assert.match(document, /data-state="unreachable"/);
    assert.match(
      document,
      /the counting service is unreachable: http:\/\/count-api\.virtual\.consul does not answer/,
    );
  });
}

test.run();
