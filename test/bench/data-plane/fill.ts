/** Mappings that are there already, of containers without traffic, in the form that both suites write. */
import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { chainInProcess } from '../chain/in-process.ts';
import { sh } from '../chain/machine.ts';
import type { Backend, List } from '../chain/suites.ts';

const FIRST_PORT = 20_000;
/** On no interface of the host: these containers do not exist. */
const ADDRESS = '10.99.0.2';

/** `count` containers with one tcp mapping each, in the network namespace that the caller is in. */
export function fillMappings(portmap: List, backend: Backend, count: number): void {
  if (count === 0) return;
  if (backend === 'nftables') {
    for (let at = 0; at < count; at++) addFiller(portmap, at);
    return;
  }
  addFiller(portmap, 0);
  if (count > 1) repeatFiller(count);
}

function fillerId(at: number): string {
  return `filler-${String(at).padStart(5, '0')}`;
}

function addFiller(portmap: List, at: number): void {
  const port = FIRST_PORT + at;
  const mapping = { hostPort: port, containerPort: port, protocol: 'tcp' };
  const prevResult = {
    cniVersion: portmap.cniVersion,
    interfaces: [{ name: 'eth0', sandbox: '/none' }],
    ips: [{ version: '4', interface: 0, address: `${ADDRESS}/16` }],
  };
  const runtimeConfig = { portMappings: [mapping] };
  const list = {
    ...portmap,
    // Without `capabilities`: mappings and result are written down here, not passed as for an allocation.
    plugins: portmap.plugins.map(({ type, snat }) => ({ type, snat, runtimeConfig, prevResult })),
  };
  chainInProcess(list, 'ADD', { id: fillerId(at), netns: '/none', ports: [] });
}

/** The first one's chain and jump as often as wanted, in one iptables-restore: thousands of calls would take minutes. */
function repeatFiller(count: number): void {
  const saved = sh('iptables-save -t nat').split('\n');
  const chain =
    saved.map((line) => /^:(CNI-DN-\S+) /.exec(line)?.[1]).find((name) => name !== undefined) ?? '';
  const rules = saved.filter((line) => line.startsWith('-A') && line.includes(chain));
  if (chain === '' || rules.length === 0) throw new Error('the first mapping left no chain to repeat');
  const lines = ['*nat'];
  for (let at = 1; at < count; at++) {
    const own = `CNI-DN-${createHash('sha512').update(fillerId(at)).digest('hex').slice(0, 21)}`;
    const renamed = rules.map((rule) =>
      rule
        // The port first: digits of a chain's name may look like it.
        .replaceAll(new RegExp(`\\b${FIRST_PORT}\\b`, 'g'), String(FIRST_PORT + at))
        .replaceAll(fillerId(0), fillerId(at))
        .replaceAll(chain, own),
    );
    lines.push(`:${own} - [0:0]`, ...renamed);
  }
  execFileSync('iptables-restore', ['--noflush'], { input: `${lines.join('\n')}\nCOMMIT\n` });
}
