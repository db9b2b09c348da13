/**
 * Two namespaces with everything that a transparent proxy is about:
 *
 *   namespace app (172.26.64.2, fd00::2) ── veth ── namespace peer (172.26.64.1, fd00::1; routes 192.0.2.80, 8.8.8.8, 2001:db8::80)
 *
 * In `app` a stand-in of Envoy runs as uid 101 on 15001 and 9999, the application on 9001, 9002 and 19001; in `peer` Consul's DNS on 8600, a
 * resolver on 8.8.8.8 and a remote server.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import type { Listener } from './programs/listen.ts';
import type { Probe } from './programs/probe.ts';
import { sh } from '../../../support/tproxy.ts';

export const APP = '172.26.64.2';
export const CONSUL = '172.26.64.1';
export const REMOTE = '192.0.2.80';
export const REMOTE6 = '2001:db8::80';
export const RESOLVER = '8.8.8.8';
/** The application's user; 101 is the proxy's, 200 one that the job excludes. */
export const USER = 1000;

const children: ChildProcess[] = [];

export async function buildScene(): Promise<void> {
  sh(`ip netns add app; ip netns add peer
    ip link add app0 netns app type veth peer name peer0 netns peer
    for n in app peer; do ip -n $n link set lo up; done
    ip -n app addr add ${APP}/20 dev app0; ip -n app addr add fd00::2/64 dev app0 nodad; ip -n app link set app0 up
    ip -n peer addr add ${CONSUL}/20 dev peer0; ip -n peer addr add fd00::1/64 dev peer0 nodad; ip -n peer link set peer0 up
    for a in ${REMOTE} ${RESOLVER}; do ip -n peer addr add $a/32 dev lo; done; ip -n peer addr add ${REMOTE6}/128 dev lo nodad
    ip -n app route add default via ${CONSUL}; ip -n app route add default via fd00::1`);
  await Promise.all([
    serve('app', 101, [
      { protocol: 'tcp', host: '::', port: 15001, label: 'envoy out' },
      { protocol: 'tcp', host: '::', port: 9999, label: 'envoy in' },
    ]),
    serve('app', USER, [
      { protocol: 'tcp', host: '::', port: 9001, label: 'app' },
      { protocol: 'tcp', host: '::', port: 9002, label: 'app excluded' },
      { protocol: 'udp', host: APP, port: 9001, label: 'app udp' },
      { protocol: 'tcp', host: '127.0.0.2', port: 19001, label: 'envoy admin' },
      { protocol: 'udp', host: '127.0.0.53', port: 53, label: 'stub udp' },
      { protocol: 'tcp', host: '127.0.0.53', port: 53, label: 'stub tcp' },
      { protocol: 'tcp', host: '127.0.0.1', port: 8600, label: 'local dns tcp' },
      { protocol: 'udp', host: '127.0.0.1', port: 8600, label: 'local dns udp' },
    ]),
    serve('peer', 0, [
      { protocol: 'tcp', host: CONSUL, port: 8600, label: 'consul dns tcp' },
      { protocol: 'udp', host: CONSUL, port: 8600, label: 'consul dns udp' },
      { protocol: 'tcp', host: 'fd00::1', port: 8600, label: 'consul dns6 tcp' },
      { protocol: 'udp', host: 'fd00::1', port: 8600, label: 'consul dns6 udp' },
      { protocol: 'tcp', host: RESOLVER, port: 53, label: 'resolver tcp' },
      { protocol: 'udp', host: RESOLVER, port: 53, label: 'resolver udp' },
      { protocol: 'tcp', host: REMOTE, port: 80, label: 'remote' },
      { protocol: 'tcp', host: REMOTE, port: 3306, label: 'remote db' },
      { protocol: 'udp', host: REMOTE, port: 443, label: 'remote udp' },
      { protocol: 'tcp', host: REMOTE6, port: 80, label: 'remote6' },
      { protocol: 'tcp', host: REMOTE6, port: 3306, label: 'remote6 db' },
      { protocol: 'tcp', host: REMOTE6, port: 53, label: 'resolver6 tcp' },
      { protocol: 'udp', host: REMOTE6, port: 53, label: 'resolver6 udp' },
      { protocol: 'udp', host: REMOTE6, port: 443, label: 'remote6 udp' },
      { protocol: 'tcp', host: 'fd00::1', port: 80, label: 'neighbour6' },
    ]),
  ]);
}

export function endScene(): void {
  for (const child of children) child.kill('SIGKILL');
}

/** `where uid protocol host port` and what answers: a label, `label < original destination`, or an error. */
export type Row = readonly [
  where: 'app' | 'peer',
  uid: number,
  protocol: 'tcp' | 'udp',
  host: string,
  port: number,
  answer: string,
];

/** One process asks for all rows of a place and a user. */
export function compare(rows: readonly Row[]): void {
  const places = new Set(rows.map(([where, uid]) => `${where} ${uid}`));
  const found = [...places].flatMap((place) => {
    const [where = '', uid = ''] = place.split(' ');
    const own = rows.filter((row) => row[0] === where && row[1] === Number(uid));
    const answers = ask(
      where,
      uid,
      own.map(([, , protocol, host, port]) => ({ protocol, host, port })),
    );
    return own.map((row, at) => [...row.slice(0, 5), answers[at]].join(' '));
  });
  assert.equal([...found].sort(), rows.map((row) => row.join(' ')).sort());
}

function ask(where: string, uid: string, probes: readonly Probe[]): string[] {
  const { stdout, stderr } = spawnSync('ip', command(where, 'probe.ts', uid, probes), { encoding: 'utf8' });
  const lines = stdout.split('\n').filter((line) => line !== '');
  assert.is(lines.length, probes.length, stderr);
  return lines.map((line) => {
    const { label, original, error } = JSON.parse(line) as {
      label?: string;
      original?: string;
      error?: string;
    };
    if (error !== undefined) return error;
    return original === undefined || original === 'none' ? (label ?? '') : whereTo(label ?? '', original);
  });
}

/** A connection that no rule changed has itself for its original destination, if conntrack tells at all. */
function whereTo(label: string, original: string): string {
  return label.startsWith('envoy out') || label === 'envoy in' ? `${label} < ${original}` : label;
}

async function serve(where: string, uid: number, listeners: readonly Listener[]): Promise<void> {
  const child = spawn('ip', command(where, 'listen.ts', String(uid), listeners), {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  const [ready] = (await once(child.stdout, 'data')) as [Buffer];
  assert.match(ready.toString(), /ready/);
}

function command(where: string, program: string, uid: string, spec: readonly object[]): string[] {
  const file = resolve(import.meta.dirname, 'programs', program);
  return [
    'netns',
    'exec',
    where,
    process.execPath,
    '--no-warnings',
    '--experimental-ffi',
    file,
    uid,
    JSON.stringify(spec),
  ];
}
