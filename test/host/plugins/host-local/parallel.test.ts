import { spawn } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import * as assert from 'uvu/assert';
import { executable } from '../../../support/executables.ts';
import { runPluginProcess, succeed, variables, type ProcessOutcome } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import { addressOf, config } from './reference.ts';

const test = suite('host-local, many at once', { limit: 240 });

const scratch = mkdtempSync('/run/scratch-');

test('a hundred parallel ADDs on a fresh host get a hundred addresses; a hundred parallel DELs leave none', async () => {
  const dataDir = `${mkdtempSync('/run/store-')}/not/made/yet`;
  const net = config(dataDir);
  const added = await Promise.all(hundred((id) => start('ADD', id, net)));
  const given = added.map(addressOf);
  assert.is(new Set(given).size, 100);
  for (const [at, address] of given.entries())
    assert.is(readFileSync(`${dataDir}/net/${address}`, 'latin1'), `c${at}\r\neth0`);
  const deleted = await Promise.all(hundred((id) => start('DEL', id, net)));
  for (const outcome of deleted) assert.equal(outcome, { exitCode: 0, stdout: '', stderr: '' });
  assert.equal(readdirSync(`${dataDir}/net`).sort(), ['last_reserved_ip.0', 'lock']);
});

test('the same attachment many times at once gets one address', async () => {
  const dataDir = mkdtempSync('/run/store-');
  const net = config(dataDir);
  const outcomes = await Promise.all(Array.from({ length: 12 }, () => start('ADD', 'one', net)));
  assert.equal([...new Set(outcomes.map(addressOf))], ['10.1.2.2']);
});

test('killed at random moments, again and again: nothing empty, nothing lost, nothing double', async () => {
  const dataDir = mkdtempSync('/run/store-');
  const net = config(dataDir);
  mkdirSync(`${dataDir}/net`);
  // Enough for an index, so that some kills happen while it is written.
  for (let at = 100; at < 140; at++) writeFileSync(`${dataDir}/net/10.1.2.${at}`, `base${at}\r\neth0`);
  const usual = await durationOf('ADD', 'probe', net);
  await Promise.all(
    Array.from({ length: 3 }, async (_, worker) => {
      for (let round = 0; round < 12; round++) {
        await killed(
          round % 3 === 2 ? 'DEL' : 'ADD',
          `w${worker}-${round % 4}`,
          net,
          usual * (0.3 + Math.random()),
        );
      }
    }),
  );
  const leases = readLeases(dataDir);
  const texts = [...leases.values()];
  assert.is(new Set(texts).size, texts.length, 'one lease per attachment');
  for (const [address, text] of leases) assert.match(text, /^(base\d+|w\d-\d|probe)\r\neth0$/, address);
  for (let at = 100; at < 140; at++) assert.is(leases.get(`10.1.2.${at}`), `base${at}\r\neth0`);

  for (const id of Array.from({ length: 12 }, (_, at) => `w${at % 3}-${at % 4}`)) {
    const address = addressOf(
      runPluginProcess('host-local', { command: 'ADD', env: variables({ id, netns: '/none' }), stdin: net }),
    );
    const before = [...leases].find(([, text]) => text === `${id}\r\neth0`);
    if (before !== undefined) assert.is(address, before[0], 'the address it held when it was killed');
    succeed('host-local', 'DEL', { id }, net);
  }
  succeed('host-local', 'DEL', { id: 'probe' }, net);
  assert.is(readLeases(dataDir).size, 40);
  assert.equal(readdirSync(dataDir), ['net']);
});

test.run();

function hundred<T>(make: (id: string) => T): T[] {
  return Array.from({ length: 100 }, (_, at) => make(`c${at}`));
}

/**
 * The configuration comes from a file, not a pipe: while this process starts a hundred others it gets to no pipe for many
 * seconds, and a plugin does not wait forever.
 */
function start(command: string, id: string, stdin: object): Promise<ProcessOutcome> {
  const file = `${mkdtempSync(`${scratch}/`)}/stdin`;
  writeFileSync(file, JSON.stringify(stdin));
  const input = openSync(file, 'r');
  const child = spawn(executable('host-local'), {
    env: { PATH: '/usr/bin:/bin', CNI_COMMAND: command, ...variables({ id, netns: '/none' }) },
    stdio: [input, 'pipe', 'pipe'],
  });
  closeSync(input);
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => (stdout += chunk));
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => (stderr += chunk));
  return new Promise((resolve, reject) => {
    child.on('error', reject).on('close', (exitCode) => resolve({ exitCode, stdout, stderr }));
  });
}

async function durationOf(command: string, id: string, stdin: object): Promise<number> {
  const began = Date.now();
  addressOf(await start(command, id, stdin));
  return Date.now() - began;
}

/** Starts a call and kills it with its children after so many milliseconds, or lets it end when it is faster. */
function killed(command: string, id: string, stdin: object, after: number): Promise<void> {
  const child = spawn(executable('host-local'), {
    env: { PATH: '/usr/bin:/bin', CNI_COMMAND: command, ...variables({ id, netns: '/none' }) },
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  child.stdin.on('error', () => undefined).end(JSON.stringify(stdin));
  const timer = setTimeout(() => {
    try {
      process.kill(-(child.pid as number), 'SIGKILL');
    } catch {
      // It has just ended.
    }
  }, after);
  return new Promise((resolve) => {
    child.on('close', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

function readLeases(dataDir: string): Map<string, string> {
  const names = readdirSync(`${dataDir}/net`).filter((name) => /^[0-9.]+$/.test(name));
  return new Map(names.map((name) => [name, readFileSync(`${dataDir}/net/${name}`, 'latin1')]));
}
