import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/types.ts';
import { succeed } from '../../../support/plugin.ts';
import {
  addressesOf,
  cleanHost,
  DUAL,
  ip,
  ipam,
  leases,
  makeNamespace,
  natRules,
  network,
  nftRules,
} from './host.ts';
import { stepsOf, trace, wasMiscounted, type Step, type Traced } from './strace.ts';

/**
 * Every step of ADD or DEL in turn is made to fail, or is the moment at which the plugin is killed. The steps are not
 * written down here: they are read off an undisturbed run, so a new one is covered from its first day.
 */
export const c1 = { id: 'cont1', netns: '/run/netns/c1' };
export const config = network({ ipMasq: true, hairpinMode: true, ipam: ipam(DUAL) });
const withSpoofCheck = { ...config, macspoofchk: true, ipMasqBackend: 'nftables' };

/** The steps of one undisturbed ADD (or DEL) on a fresh host. */
function steps(command: 'ADD' | 'DEL', own: object): Step[] {
  const traced = countedRun(command, own);
  const found = stepsOf(traced);
  assert.ok(found.length > 20, `only ${found.length} steps seen: is strace here?`);
  cleanHost();
  return found;
}

function countedRun(command: 'ADD' | 'DEL', own: object, attempt = 1): Traced {
  makeNamespace('c1');
  if (command === 'DEL') succeed('bridge', 'ADD', c1, own);
  const traced = trace(command, c1, own);
  if (wasMiscounted() && attempt < ATTEMPTS) {
    cleanHost();
    return countedRun(command, own, attempt + 1);
  }
  assert.is(traced.exitCode, 0, traced.stdout);
  return traced;
}

const ATTEMPTS = 50;

export const VARIANTS = { iptables: config, 'nftables and spoofing check': withSpoofCheck };

/** What kind of refusal a step may meet in life. */
export const ERRORS: Readonly<Record<string, string>> = {
  openat: 'EROFS',
  write: 'ENOSPC',
  link: 'ENOSPC',
  mkdir: 'ENOSPC',
};

export function assertClean(): void {
  assert.equal(ip('link show type veth'), []);
  assert.equal(leases(), {});
  assert.equal([...natRules(4), ...natRules(6)], []);
  assert.equal(nftRules(), []);
}

/** As after an ADD that nothing disturbed. */
export function assertComplete(result: CniResult, own: object): void {
  assert.equal(addressesOf('eth0', 'c1'), ['10.88.0.2/16', 'fd00:88::2/64']);
  assert.is(ip('link show type veth').length, 1);
  assert.equal(leases(), { '10.88.0.2': 'cont1\r\neth0', 'fd00:88::2': 'cont1\r\neth0' });
  succeed('bridge', 'CHECK', c1, { ...own, prevResult: result });
}

/** Runs `work` for every step on a fresh host; what goes wrong is collected, so that one run tells all. */
export function everyStep(
  command: 'ADD' | 'DEL',
  own: object,
  isMeant: (step: Step) => boolean,
  work: (step: Step, at: number) => void,
): void {
  const complaints: string[] = [];
  for (const [at, step] of steps(command, own).filter(isMeant).entries()) {
    let complaint = complaintAbout(() => work(step, at));
    for (let attempt = 1; complaint !== '' && wasMiscounted() && attempt < ATTEMPTS; attempt++) {
      complaint = complaintAbout(() => work(step, at));
    }
    if (complaint !== '')
      complaints.push(`${step.syscall} ${step.when} of ${command}: ${step.text}\n${complaint}`);
  }
  assert.is(complaints.length, 0, complaints.join('\n\n'));
}

/** On a fresh host, and a fresh one again afterwards. */
function complaintAbout(work: () => void): string {
  makeNamespace('c1');
  try {
    work();
    return '';
  } catch (thrown) {
    const { message, details } = thrown as { message: string; details?: string };
    return `${message}\n${details ?? ''}`;
  } finally {
    cleanHost();
  }
}
