/** Repair beside ADD and DEL in other processes while another program deletes rules: `npm test -- --thorough` takes 1,000 rounds. */
import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import * as assert from 'uvu/assert';
import { loadRoles } from '../../../../agent/repair/calls.ts';
import { createMarks, removeOldMarks, Repairer } from '../../../../agent/repair/repairer.ts';
import { sh } from '../../../e2e/support/client-host.ts';
import { binDir, executable } from '../../../support/executables.ts';
import { launchersMissing, LAUNCHERS, NodeAgent } from '../../../support/node-agent.ts';
import { Random } from '../../../support/random.ts';
import { suite } from '../../../support/suite.ts';
import { rounds } from '../../../support/thorough.ts';
import { useVariant } from '../../../support/variants.ts';
import { networkList } from './scene.ts';

const ROUNDS = rounds(1_000, 6);
const test = suite('repair beside ADD and DEL', { limit: 60 + 6 * ROUNDS });
const seed = Number(process.env['WEFT_SEED'] ?? Date.now() % 1_000_000);
const random = new Random(seed);
const run = promisify(execFile);
const DAMAGES = [
  'nft flush ruleset',
  'iptables -F; iptables -t nat -F',
  'nft delete table ip weft_hostports',
  'iptables -t nat -F POSTROUTING; nft flush chain inet weft_firewall forward',
];

class Container {
  readonly id: string;
  readonly #options: readonly string[];
  isRunning = false;

  constructor(network: number, number: number) {
    this.id = `net${network}-c${number}`;
    sh(`ip netns add ${this.id}`);
    const port = `${20_000 + 1_000 * network + number}:80/tcp`;
    this.#options = ['--conflist', listFile(network), '--id', this.id, '--netns', this.id, '--port', port];
  }

  /** Most calls are made by an agent, which takes a tenth of the time; the others, by plain executables, run beside them. */
  async call(verb: 'add' | 'del'): Promise<void> {
    const bin = launchersMissing === undefined && random.below(4) > 0 ? LAUNCHERS : binDir;
    await run(executable('weft'), ['run', verb, '--bin-dir', bin, ...this.#options], { timeout: 30_000 });
    this.isRunning = verb === 'add';
  }
}

function listFile(network: number): string {
  return `/run/net${network}.conflist`;
}

const containers: Container[] = [];

test.before(async () => {
  useVariant('nft');
  mkdirSync('/etc/weft', { recursive: true });
  writeFileSync('/etc/weft/weft.json', '{"repair": "off", "gc": "off"}');
  if (launchersMissing === undefined) await NodeAgent.start();
  for (const [network, backend] of (['iptables', 'nftables'] as const).entries()) {
    writeFileSync(listFile(network), networkList(backend, network).text);
    for (const number of [1, 2, 3]) containers.push(new Container(network, number));
  }
  createMarks();
  for (const container of containers.filter((_, at) => at % 3 < 2)) await container.call('add');
});

test.after(() => NodeAgent.killAll());

/** Everything that names a container or its address, by container: equal for one that has all its rules. */
function rulesOf(text: string, { id }: Container): string {
  return text
    .split('\n')
    .filter((line) => new RegExp(`\\b${id}\\b`).test(line))
    .sort()
    .join('\n');
}

function allRules(): string {
  return sh(
    'iptables-save; ip6tables-save; nft -s list ruleset inet; nft -s list table ip weft_hostports 2>/dev/null || true',
  );
}

test(`${ROUNDS} rounds, seed ${seed}: no rule of a deleted container returns, none of a running one is lost`, async () => {
  const repairer = new Repairer(await loadRoles());
  let repairs = 0;
  let pieces = 0;
  const repairOnce = (): void => {
    removeOldMarks();
    const { missing, left } = repairer.repair({ write: true });
    assert.equal(left, []);
    repairs += missing.length > 0 ? 1 : 0;
    pieces += missing.length;
  };
  for (let round = 1; round <= ROUNDS; round++) {
    const first = random.below(containers.length);
    const second = first + 1 + random.below(containers.length - 1);
    const chosen = [first, second].flatMap((at) => containers[at % containers.length] ?? []);
    const calls = chosen.map((one) => one.call(one.isRunning && random.below(4) > 0 ? 'del' : 'add'));
    let isOver = false;
    const all = Promise.all(calls).finally(() => (isOver = true));
    while (!isOver) {
      if (random.below(3) === 0) sh(`{ ${random.pick(DAMAGES)}; } 2>/dev/null || true`);
      repairOnce();
      await pause(random.below(40));
    }
    await all;
    repairOnce();
    const text = allRules();
    for (const one of containers) {
      if (!one.isRunning) assert.is(rulesOf(text, one), '', `round ${round}: ${one.id} is deleted`);
      else
        assert.ok(
          rulesOf(text, one).split('\n').length > 5,
          `round ${round}: ${one.id} is running: ${rulesOf(text, one)}`,
        );
    }
    assert.equal(repairer.repair({ write: false }).missing, [], `round ${round}`);
    if (round % 100 === 0) console.log(`${round} rounds: ${repairs} repairs restored ${pieces} pieces`);
  }
  assert.ok(repairs >= ROUNDS / 2, `${repairs} repairs`);
});

test.run();
