import { readdirSync, readFileSync, rmSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { succeed } from '../../../support/plugin.ts';
import { changing, disturbedThenDeleted, everyStep, killAt, type Scenario } from '../../../support/steps.ts';
import { suite } from '../../../support/suite.ts';
import { add, addresses, attachment, configFor, leases } from './calls.ts';

/** The executable killed before each system call that changes the store, beside the lease of another container. */
const test = suite('host-local: killed before each change', { limit: 300 });

const DATA_DIR = '/run/killed';
const config = configFor(DATA_DIR);
const other = { ...attachment, id: 'other' };

const scenario = (command: 'ADD' | 'DEL'): Scenario => ({
  plugin: 'host-local',
  command,
  attachment,
  config,
  prepare: () => {
    add(config, other);
    if (command === 'DEL') add(config);
  },
  clean: () => rmSync(DATA_DIR, { recursive: true }),
});

/** DEL leaves the other container's lease, and no temporary file. */
function remove(): void {
  succeed('host-local', 'DEL', attachment, config);
  assert.equal(readdirSync(DATA_DIR), ['net']);
  assert.equal(readdirSync(`${DATA_DIR}/net`).sort(), ['10.1.2.2', 'last_reserved_ip.0', 'lock']);
  assert.is(readFileSync(`${DATA_DIR}/net/10.1.2.2`, 'utf8'), 'other\r\neth0');
}

test('ADD killed at any step: ADD again gives one address, CHECK passes, and DEL releases it', () => {
  everyStep(scenario('ADD'), changing, (step, _, disturbed) => {
    disturbed(killAt(step));
    const result = add(config);
    assert.is(leases(DATA_DIR).length, 2);
    assert.not.equal(addresses(result), ['10.1.2.2/24']);
    succeed('host-local', 'CHECK', attachment, { ...config, prevResult: result });
    remove();
  });
});

disturbedThenDeleted(test, scenario, remove);

test.run();
