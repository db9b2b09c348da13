import { existsSync, mkdirSync, rmSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { INDEX_DIR } from '../../../../shared/ipam/index-file.ts';
import { ipamAdd, ipamDel, ipamGc } from '../../../../shared/ipam/ipam.ts';
import { suite } from '../../../support/suite.ts';
import { callOn, leasesIn, newDataDir } from './calls.ts';
import { withRandom, type Random } from '../../../support/random.ts';
import { referenceAdd, referenceDel } from './reference-writer.ts';

const test = suite('allocator against a slow model', { limit: 120 });

/** Two ranges of one set with holes: a /26 without its network, broadcast and gateway, and a part of a /24. */
const ipam = {
  ranges: [
    [
      { subnet: '10.1.0.0/26', gateway: '10.1.0.30' },
      { subnet: '10.2.0.0/24', rangeStart: '10.2.0.240', rangeEnd: '10.2.0.250' },
    ],
  ],
};

/** Every address in the order of the ring. */
const RING = [
  ...Array.from({ length: 62 }, (_, at) => `10.1.0.${at + 1}`).filter((address) => address !== '10.1.0.30'),
  ...Array.from({ length: 11 }, (_, at) => `10.2.0.${at + 240}`),
];

/** What the allocator promises, without any files: a map and a walk. */
class Model {
  readonly leases = new Map<string, string>();
  last: string | undefined;

  order(): string[] {
    const at = this.last === undefined ? -1 : RING.indexOf(this.last);
    return [...RING.slice(at + 1), ...RING.slice(0, at + 1)];
  }

  of(owner: string): string | undefined {
    return [...this.leases].find(([, holder]) => holder === owner)?.[0];
  }

  add(owner: string, requested: string | undefined): string | undefined {
    const held = this.of(owner);
    if (held !== undefined) return requested === undefined || requested === held ? held : undefined;
    const address =
      requested === undefined ? this.order().find((candidate) => !this.leases.has(candidate)) : requested;
    if (address === undefined || this.leases.has(address)) return undefined;
    this.leases.set(address, owner);
    this.last = address;
    return address;
  }

  del(owner: string): void {
    for (const [address, holder] of this.leases) if (holder === owner) this.leases.delete(address);
  }
}

for (const pressure of [0.3, 0.55, 0.9]) {
  test(`a thousand random calls, ours and the reference's mixed, adding ${Math.round(pressure * 100)} %`, () => {
    withRandom((random) => play(newDataDir(), random, pressure, 1000));
  });
}

test.run();

function play(dataDir: string, random: Random, pressure: number, calls: number): void {
  const store = `${dataDir}/net`;
  mkdirSync(store);
  rmSync(INDEX_DIR, { recursive: true, force: true });
  const model = new Model();
  let sawIndex = false;
  for (let step = 0; step < calls; step++) {
    const id = `c${Math.floor(random.next() * 90)}`;
    const owner = `${id}\r\neth0`;
    const isUnmanaged = random.next() < 0.15;
    const action = random.next();
    let said = '';
    if (action < pressure) {
      const requested =
        !isUnmanaged && random.next() < 0.2
          ? (RING[Math.floor(random.next() * RING.length)] as string)
          : undefined;
      said = isUnmanaged ? foreignAdd(store, model, owner) : ownAdd(dataDir, model, id, requested);
    } else if (action < 0.995) {
      if (isUnmanaged) {
        referenceDel(store, owner);
        // Else the reference could reserve the same address again within the resolution of file times, which no process is fast enough for.
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 11);
      } else {
        ipamDel(callOn(dataDir, { id, ipam }));
      }
      model.del(owner);
    } else {
      collect(dataDir, model, random);
    }
    assert.equal(leasesIn(store), Object.fromEntries([...model.leases].sort()), `step ${step} ${said}`);
    sawIndex ||= existsSync(INDEX_DIR);
  }
  if (pressure > 0.5) assert.ok(sawIndex, 'there were enough leases for an index');
}

function ownAdd(dataDir: string, model: Model, id: string, requested: string | undefined): string {
  const call = callOn(dataDir, {
    id,
    ipam,
    ...(requested === undefined ? {} : { cniArgs: `IP=${requested}` }),
  });
  const expected = model.add(`${id}\r\neth0`, requested);
  let given: string | undefined;
  try {
    given = ipamAdd(call).ips[0]?.address.split('/')[0];
  } catch {
    given = undefined;
  }
  assert.is(given, expected, `${id} asked for ${requested ?? 'any'}`);
  return `${id} got ${given}`;
}

function foreignAdd(store: string, model: Model, owner: string): string {
  const given = referenceAdd(store, owner, model.order());
  assert.is(given, model.of(owner) === undefined ? model.add(owner, undefined) : undefined);
  return `reference gave ${given}`;
}

function collect(dataDir: string, model: Model, random: Random): void {
  const kept = [...model.leases].filter(() => random.next() < 0.8);
  const valid = kept.map(([, owner]) => ({ containerID: owner.split('\r\n')[0] as string, ifname: 'eth0' }));
  ipamGc(callOn(dataDir, { ipam, valid }));
  const keptOwners = new Set(kept.map(([, owner]) => owner));
  for (const [address, owner] of model.leases) if (!keptOwners.has(owner)) model.leases.delete(address);
}
