import { USUAL_FOLDER } from '../../conflist/runtime.ts';
import { readOptions, UsageError } from '../../shared/config/command-line.ts';

export const HELP = `usage: weft countdash [options]

Runs Consul's counting example for Nomad on this host: the groups "api" and "dashboard", each in a network namespace that
Weft's CNI plugins connect with Nomad's own network list. Consul DNS is simulated, and without --envoy the sidecars are.
Prints the page's URL, runs until Ctrl-C, and then removes everything.

  --once           run once, assert each step, exit
  --envoy [PATH]   real Envoy sidecars: this executable, else "envoy" in PATH
  --nomad          on real agents: starts nomad and consul of PATH, runs the job with Envoy sidecars, needs both and envoy
  --upstreams      no transparent proxy: count-api is a manual upstream on the dashboard's port 8080
  --deny           deny the intention dashboard -> count-api
  --dual-stack     IPv6 beside IPv4
  --backend NAME   iptables or nftables, for masquerading, port mappings and transparent proxy (default: the node's)
  --port NUMBER    port of the page on this host (default 9002)
  --bin-dir FOLDER directory of the plugins (default: this executable's folder, else ${USUAL_FOLDER})

Exit status: 0 the demo ended, with --once every step as asserted; 1 a step failed, or the host lacks something; 2 wrong usage
`;

export type Backend = 'iptables' | 'nftables';

/** Of Consul's DNS. */
export const DNS_PORT = 8600;

export interface Options {
  readonly once: boolean;
  /** Envoy's executable; '' for the one in PATH; undefined: the sidecars are simulated. */
  readonly envoy: string | undefined;
  /** On Nomad and Consul instead of simulated ones. */
  readonly nomad: boolean;
  readonly upstreams: boolean;
  readonly deny: boolean;
  readonly dualStack: boolean;
  /** Undefined: what the plugins choose by themselves. */
  readonly backend: Backend | undefined;
  readonly port: number;
  readonly binDirs: readonly string[] | undefined;
}

/** Undefined when only the help is wanted. Throws UsageError. */
export function parseOptions(argv: readonly string[]): Options | undefined {
  const { values } = readOptions(withValue('--envoy', argv), {
    envoy: { type: 'string' },
    once: { type: 'boolean', default: false },
    nomad: { type: 'boolean', default: false },
    upstreams: { type: 'boolean', default: false },
    deny: { type: 'boolean', default: false },
    'dual-stack': { type: 'boolean', default: false },
    backend: { type: 'string' },
    port: { type: 'string', default: '9002' },
    'bin-dir': { type: 'string', multiple: true },
    help: { type: 'boolean', short: 'h', default: false },
  });
  if (values.help) return undefined;
  const port = portNumber(values.port);
  const [other] = FIXED_BY_JOB.filter((name) => argv.some((word) => word.startsWith(`--${name}`)));
  if (values.nomad && other !== undefined)
    throw new UsageError(`--${other} cannot be combined with --nomad: the job file decides it`);
  if (port === DNS_PORT && !values.upstreams)
    throw new UsageError(
      `--port must not be ${DNS_PORT}: the port mapping would take precedence over the host's Consul DNS`,
    );
  return {
    once: values.once,
    envoy: values.envoy ?? (values.nomad ? '' : undefined),
    nomad: values.nomad,
    upstreams: values.upstreams,
    deny: values.deny,
    dualStack: values['dual-stack'],
    backend: backendName(values.backend),
    port,
    binDirs: values['bin-dir'],
  };
}

const FIXED_BY_JOB = ['upstreams', 'deny', 'dual-stack', 'backend', 'port'];

/** An option whose value may be left out: `--envoy --once` is `--envoy= --once`. */
function withValue(option: string, argv: readonly string[]): string[] {
  return argv.map((word, at) =>
    word === option && (argv[at + 1] ?? '-').startsWith('-') ? `${option}=` : word,
  );
}

function backendName(text: string | undefined): Backend | undefined {
  if (text === undefined || text === 'iptables' || text === 'nftables') return text;
  throw new UsageError(`--backend must be iptables or nftables, got "${text}"`);
}

function portNumber(text: string): number {
  const number = Number(text);
  if (/^\d+$/.test(text) && number >= 1 && number <= 65535) return number;
  throw new UsageError(`--port must be 1 to 65535, got "${text}"`);
}
