import { lstatSync, mkdtempSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import * as assert from 'uvu/assert';
import {
  runPluginProcess,
  startPluginProcess,
  succeed,
  variables,
  type ProcessOutcome,
} from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import { addressOf, config, referenceMissing, runReference, startReference } from './reference.ts';

/** C23: one store, both programs, in turns and at the same time. */
const test = suite("host-local and the reference's, one store", { limit: 240 });

if (referenceMissing === undefined) {
  test('the same calls make the same files, byte for byte', () => {
    const ipam = { ranges: [[{ subnet: '10.1.2.0/29' }], [{ subnet: 'fd00::/125', gateway: 'fd00::3' }]] };
    const [ours, theirs] = [weft, runReference].map((run) => {
      const dataDir = mkdtempSync('/run/store-');
      for (const [command, id] of [
        ['ADD', 'a'],
        ['ADD', 'b'],
        ['DEL', 'a'],
        ['ADD', 'c'],
        ['ADD', 'd'],
        ['DEL', 'c'],
        ['ADD', 'a'],
      ]) {
        assert.is(run(command as string, id as string, config(dataDir, ipam)).exitCode, 0);
      }
      return contents(`${dataDir}/net`);
    });
    assert.equal(ours, theirs);
  });

  test('each releases what the other leased, and skips it', () => {
    const dataDir = mkdtempSync('/run/store-');
    const net = config(dataDir);
    assert.is(addressOf(runReference('ADD', 'theirs', net)), '10.1.2.2');
    assert.is(addressOf(weft('ADD', 'ours', net)), '10.1.2.3');
    assert.is(addressOf(runReference('ADD', 'theirs2', net)), '10.1.2.4');
    succeed('host-local', 'CHECK', { id: 'theirs', netns: '/none' }, net);
    assert.is(runReference('CHECK', 'ours', net).exitCode, 0);
    // Ours gives the address that the reference leased; the reference refuses, but knows the lease.
    assert.is(addressOf(weft('ADD', 'theirs', net)), '10.1.2.2');
    assert.match(runReference('ADD', 'ours', net).stdout, '10.1.2.3 has been allocated to ours');
    assert.is(weft('DEL', 'theirs', net).exitCode, 0);
    assert.is(runReference('DEL', 'ours', net).exitCode, 0);
    assert.equal(leases(dataDir), { '10.1.2.4': 'theirs2\r\neth0' });
  });

  test('a link under an address keeps it from both, whatever is released, collected or exhausted', () => {
    const dataDir = mkdtempSync('/run/store-');
    const net = { ...config(dataDir, { ranges: [[{ subnet: '10.1.2.0/29' }]] }), cniVersion: '1.0.0' };
    assert.is(addressOf(runReference('ADD', 'first', net)), '10.1.2.2');
    for (const address of ['10.1.2.3', '10.1.2.5']) symlinkSync('reserved', `${dataDir}/net/${address}`);
    assert.is(addressOf(runReference('ADD', 'theirs', net)), '10.1.2.4');
    assert.is(addressOf(weft('ADD', 'ours', net)), '10.1.2.6');
    for (const run of [weft, runReference])
      assert.match(run('ADD', 'late', net).stdout, 'no IP addresses available');
    for (const run of [weft, runReference]) assert.is(run('DEL', 'reserved', net).exitCode, 0);
    const gc = { ...net, cniVersion: '1.1.0', 'cni.dev/valid-attachments': [] };
    assert.equal(weft('GC', '', gc), { exitCode: 0, stdout: '', stderr: '' });
    assert.equal(readdirSync(`${dataDir}/net`).sort(), [
      '10.1.2.3',
      '10.1.2.5',
      'last_reserved_ip.0',
      'lock',
    ]);
  });

  test('changes of the reference are noticed while an index is kept, and it never sees the index', () => {
    const dataDir = mkdtempSync('/run/store-');
    const net = config(dataDir);
    for (let at = 0; at < 40; at++) runReference('ADD', `c${at}`, net);
    assert.is(addressOf(weft('ADD', 'ours', net)), '10.1.2.42');
    const [index] = readdirSync('/run/weft/ipam');
    assert.ok(index !== undefined, 'forty leases are worth an index');
    assert.equal(
      readdirSync(`${dataDir}/net`).filter((name) => !/^10\.|^lock$|^last_reserved_ip\.0$/.test(name)),
      [],
    );
    assert.equal(readdirSync(dataDir), ['net']);
    for (let round = 0; round < 5; round++) {
      const theirs = addressOf(runReference('ADD', `between${round}`, net));
      assert.is(addressOf(weft('ADD', `between${round}`, net)), theirs);
      assert.is(runReference('DEL', `c${round}`, net).exitCode, 0);
      assert.is(weft('DEL', `between${round}`, net).exitCode, 0);
      assert.not.ok(theirs in leases(dataDir));
    }
    assert.is(Object.keys(leases(dataDir)).length, 36);
  });

  test('both at once: distinct addresses, nothing lost, everything releasable by the other', async () => {
    const dataDir = mkdtempSync('/run/store-');
    const net = config(dataDir);
    const outcomes = await inWaves(60, (at) =>
      at % 2 === 0 ? startReference('ADD', `c${at}`, net) : startWeft('ADD', `c${at}`, net),
    );
    const given = outcomes.map(addressOf);
    assert.is(new Set(given).size, 60);
    assert.equal(
      leases(dataDir),
      Object.fromEntries(given.map((address, at) => [address, `c${at}\r\neth0`]).sort()),
    );
    // Crosswise, and in the same breath new ones.
    const crosswise = await inWaves(60, (at) => {
      if (at % 3 === 0)
        return at % 2 === 0 ? startReference('ADD', `new${at}`, net) : startWeft('ADD', `new${at}`, net);
      return at % 2 === 0 ? startWeft('DEL', `c${at}`, net) : startReference('DEL', `c${at}`, net);
    });
    for (const outcome of crosswise) assert.is(outcome.exitCode, 0, outcome.stdout);
    const left = Object.values(leases(dataDir)).map((text) => text.split('\r\n')[0] as string);
    const expected = Array.from({ length: 20 }, (_, at) => [`c${3 * at}`, `new${3 * at}`]).flat();
    assert.equal(left.sort(), expected.sort());
  });
} else {
  test.skip('interoperation', referenceMissing);
}

test.run();

function weft(command: string, id: string, stdin: object): ProcessOutcome {
  return runPluginProcess('host-local', { command, env: variables({ id, netns: '/none' }), stdin });
}

function startWeft(command: string, id: string, stdin: object): Promise<ProcessOutcome> {
  return startPluginProcess('host-local', { command, env: variables({ id, netns: '/none' }), stdin });
}

/** As many calls, twenty at a time. */
async function inWaves(
  count: number,
  start: (at: number) => Promise<ProcessOutcome>,
): Promise<ProcessOutcome[]> {
  const outcomes: ProcessOutcome[] = [];
  const rest = Array.from({ length: count }, (_, at) => at);
  const worker = async (): Promise<void> => {
    for (let at = rest.shift(); at !== undefined; at = rest.shift()) outcomes[at] = await start(at);
  };
  await Promise.all(Array.from({ length: 20 }, worker));
  return outcomes;
}

/** Names and bytes; of modes only those of lock and folder, because Debian's release made leases 0644 and newer ones 0600. */
function contents(store: string): Record<string, string> {
  const files = Object.fromEntries(
    readdirSync(store).map((name) => [name, readFileSync(`${store}/${name}`, 'hex')]),
  );
  const mode = (path: string): string => (lstatSync(path).mode & 0o777).toString(8);
  return { ...files, 'mode of lock': mode(`${store}/lock`), 'mode of store': mode(store) };
}

function leases(dataDir: string): Record<string, string> {
  const store = `${dataDir}/net`;
  const names = readdirSync(store).filter((name) => /^[0-9.]+$/.test(name));
  return Object.fromEntries(names.sort().map((name) => [name, readFileSync(`${store}/${name}`, 'latin1')]));
}
