import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { readAsset } from '../../../shared/assets.ts';
import { CniCode, CniError } from '../../../shared/cni/errors.ts';
import { findProgram } from '../../../shared/process/run-program.ts';
import { weftCommand } from '../children.ts';
import { portHolders, readHostFacts } from '../host.ts';
import { NAMES, type Plan, PROXY_UID } from '../plan.ts';
import { fetchText } from '../programs.ts';
import type { Progress } from '../progress.ts';
import { tool, tryTool } from '../tool.ts';
import { Agents, agentEnvironment, getJson, waitFor } from './agents.ts';

const FOLDER = `${NAMES.folder}/nomad`;
const DOCS = 'docs/get-started/nomad.md explains how to set them up';
const JOB = 'countdash';
const PORTS = { nomad: 4646, consul: 8500 } as const;
/** Of both agents: HTTP, RPC, gossip, gRPC and DNS. */
const ALL_PORTS = [4646, 4647, 4648, 8300, 8301, 8302, 8500, 8502, 8600];
const PAGE_MS = 180_000;
const STOPPED_MS = 60_000;

/** What this host lacks for `weft countdash --nomad`. @param envoy path of its executable, if there is one */
export function missingForNomad(envoy: string | undefined): string[] {
  const programs = { nomad: findProgram('nomad'), consul: findProgram('consul'), envoy };
  return [
    ...Object.entries(programs)
      .filter(([, path]) => path === undefined)
      .map(([name]) => `"${name}" is not in PATH; --nomad needs nomad, consul and envoy: ${DOCS}`),
    ...(proxyUser() === undefined
      ? [`no user has uid ${PROXY_UID}, the proxy's: useradd --system --uid ${PROXY_UID} envoy`]
      : []),
    ...(readHostFacts().address === undefined
      ? ['this host has only its loopback address; Nomad needs another one']
      : []),
    ...ALL_PORTS.flatMap(portHolders).map((holder) => `${holder}; stop it, --nomad starts its own agents`),
  ];
}

/**
 * The example on real agents: Consul and Nomad on 127.0.0.1, Consul's DNS on the host's address, the job with raw_exec tasks. Resolves when
 * `stop` does, with --once when the page has counted; by then the job and both agents have ended. @returns the exit status
 */
export async function runOnNomad(
  plan: Plan,
  binDirs: readonly string[],
  { progress, stop }: { progress: Progress; stop: { readonly asked: Promise<void>; check: () => void } },
): Promise<number> {
  const agents = new Agents();
  const step = async (what: string, work: () => void | Promise<void>): Promise<void> => {
    stop.check();
    await progress.step(what, work);
  };
  try {
    await step(`configuration in ${FOLDER}`, () => writeConfiguration(plan, binDirs));
    await step(`Consul, DNS on ${plan.hostAddress}:8600`, () => startConsul(agents));
    await step('intention: count-dashboard may call count-api', () => {
      tool('consul', ['config', 'write', `${FOLDER}/intention.hcl`], { env: agentEnvironment() });
    });
    await step('Nomad, server and client', () => startNomad(agents));
    await step(`job ${JOB}`, () => startJob(plan));
    const page = `http://${plan.hostAddress}:${plan.options.port}`;
    await step(`${page} counts, through both sidecars`, () =>
      pageCounts(page, () => {
        stop.check();
        agents.throwIfEnded();
      }),
    );
    if (plan.options.once) return 0;
    progress.line(`\nThe page: ${page}\nCtrl-C stops the job and both agents and removes everything.\n`);
    await Promise.race([stop.asked, agents.death]);
    return 0;
  } finally {
    await progress.step('job, Nomad and Consul stopped', async () => {
      const warn = (line: string): void => progress.line(`${'warning'.padStart(9)}  ${line}`);
      await stopJob(warn);
      await agents.stop(warn);
    });
  }
}

/** The repository's files, and what this run changes in a file of its own: both agents merge what they read. */
function writeConfiguration({ hostAddress, recursors, subnets }: Plan, binDirs: readonly string[]): void {
  mkdirSync(FOLDER, { recursive: true, mode: 0o755 });
  const write = (name: string, text: string): void =>
    writeFileSync(`${FOLDER}/${name}`, text, { mode: 0o600 });
  for (const file of [
    'consul/dev.hcl',
    'consul/intention.hcl',
    'nomad/agent.nomad.hcl',
    'nomad/raw-exec.nomad.hcl',
  ])
    write(file.replace(/.*\//, ''), readAsset(`examples/countdash/${file}`));
  write('consul.json', JSON.stringify({ addresses: { dns: hostAddress }, recursors }, null, 2));
  const nomad = {
    data_dir: `${FOLDER}/data`,
    bind_addr: '127.0.0.1',
    advertise: { http: '127.0.0.1', rpc: '127.0.0.1', serf: '127.0.0.1' },
    client: {
      cni_path: binDirs.join(':'),
      bridge_network_name: NAMES.bridge,
      bridge_network_subnet: subnets[0],
    },
  };
  write('nomad.json', JSON.stringify(nomad, null, 2));
}

function startConsul(agents: Agents): Promise<void> {
  return agents.start({
    program: findProgram('consul') ?? '',
    args: ['agent', '-dev', `-config-file=${FOLDER}/dev.hcl`, `-config-file=${FOLDER}/consul.json`],
    logFile: `${FOLDER}/consul.log`,
    ready: { port: PORTS.consul, path: '/v1/status/leader', when: isNamed },
  });
}

function startNomad(agents: Agents): Promise<void> {
  return agents.start({
    program: findProgram('nomad') ?? '',
    args: ['agent', `-config=${FOLDER}/agent.nomad.hcl`, `-config=${FOLDER}/nomad.json`],
    logFile: `${FOLDER}/nomad.log`,
    ready: {
      port: PORTS.nomad,
      path: '/v1/nodes',
      when: (nodes) =>
        Array.isArray(nodes) && nodes.some(({ Status }: { Status?: string }) => Status === 'ready'),
    },
  });
}

/** An agent without a leader answers "". */
function isNamed(leader: unknown): boolean {
  return typeof leader === 'string' && leader !== '';
}

/** The tasks are this executable: it drops its privileges itself, and needs no resolv.conf of its own. */
function startJob({ options }: Plan): void {
  const program = (role: string): string => JSON.stringify([...weftCommand(), 'countdash-child', role]);
  const variables = {
    envoy: options.envoy ?? '',
    envoy_user: proxyUser() ?? '',
    counting_service: program('count-api'),
    dashboard_service: program('dashboard'),
    dashboard_driver: 'raw_exec',
    user: 'root',
  };
  const flags = Object.entries(variables).map(([name, value]) => `-var=${name}=${value}`);
  tool('nomad', ['job', 'run', '-detach', ...flags, `${FOLDER}/raw-exec.nomad.hcl`], {
    env: agentEnvironment(),
  });
}

/** @throws CniError when the page does not answer twice, the second time with a higher count, in {@link PAGE_MS} */
async function pageCounts(page: string, check: () => void): Promise<void> {
  let last: number | undefined;
  let answer = 'no answer';
  const rises = async (): Promise<boolean> => {
    check();
    try {
      answer = await fetchText(`${page}/count`);
      const { count } = JSON.parse(answer) as { count: number };
      const before = last;
      last = count;
      return before !== undefined && count > before;
    } catch (thrown) {
      answer = (thrown as Error).message;
      return false;
    }
  };
  if (await waitFor(PAGE_MS, rises)) return;
  const { stdout } = tryTool('nomad', ['job', 'status', JOB], { env: agentEnvironment() });
  throw new CniError(CniCode.IoFailure, `${page}/count did not count within ${PAGE_MS / 1000} s: ${answer}`, {
    details: stdout.trim(),
  });
}

interface Allocation {
  readonly ID: string;
  readonly JobID: string;
  readonly ClientStatus: string;
}

/** Ends the job's allocations, whose networks Nomad then removes with DEL, and their directories. Does nothing without a Nomad. */
async function stopJob(warn: (line: string) => void): Promise<void> {
  const allocations = async (): Promise<Allocation[]> =>
    ((await getJson(PORTS.nomad, '/v1/allocations')) as Allocation[] | undefined) ?? [];
  const own = (await allocations()).filter(({ JobID }) => JobID === JOB);
  if (own.length === 0) return;
  const nomad = (...args: string[]): void => {
    const { exitCode, stderr } = tryTool('nomad', args, { env: agentEnvironment() });
    if (exitCode !== 0) warn(`nomad ${args.join(' ')} failed: ${stderr.trim()}`);
  };
  nomad('job', 'stop', '-purge', '-detach', JOB);
  const running = async (): Promise<string[]> =>
    (await allocations())
      .filter(({ JobID, ClientStatus }) => JobID === JOB && !/^(complete|failed|lost)$/.test(ClientStatus))
      .map(({ ID }) => ID);
  const left = (): string[] => namespacesOf(own.map(({ ID }) => ID));
  if (!(await waitFor(STOPPED_MS, async () => (await running()).length === 0 && left().length === 0)))
    warn(
      `allocations did not end within ${STOPPED_MS / 1000} s: ${[...(await running()), ...left()].join(', ')}`,
    );
  nomad('system', 'gc');
}

/** Nomad names an allocation's network namespace by its id. */
function namespacesOf(ids: readonly string[]): string[] {
  return tool('ip', ['netns', 'list'])
    .split('\n')
    .map((line) => line.replace(/ .*/, ''))
    .filter((name) => ids.includes(name));
}

function proxyUser(): string | undefined {
  const entry = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((line) => line.split(':')[2] === String(PROXY_UID));
  return entry?.split(':')[0];
}
