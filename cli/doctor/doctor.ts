import manifest from '../../package.json' with { type: 'json' };
import { readSync } from 'node:fs';
import { toCniError } from '../../shared/cni/errors.ts';
import { readOptions, UsageError } from '../../shared/config/command-line.ts';
import { withCallDeadline } from '../../shared/kernel/deadline.ts';
import { writeAll } from '../../shared/kernel/stdio.ts';
import { parseAddress } from '../../shared/net/address.ts';
import { allocationReport } from './allocation.ts';
import { CAPACITY_CHECKS } from './capacity.ts';
import { CATALOG, GROUPS } from './catalog.ts';
import { CONFIGURATION_CHECKS } from './configuration.ts';
import { consulUrl } from './consul.ts';
import { FIREWALL_CHECKS } from './firewalls.ts';
import { levelOf, type Check, type Finding, type NotChecked, type Report } from './finding.ts';
import { ThisHost, type DoctorOptions, type Host } from './examined-host.ts';
import { KERNEL_CHECKS } from './kernel.ts';
import { MESH_CHECKS } from './mesh.ts';
import { NETWORK_CHECKS } from './network-checks.ts';
import { PACKET_FILTER_CHECKS } from './packet-filter.ts';
import { PLUGIN_CHECKS } from './plugins.ts';
import { Progress } from '../terminal.ts';
import { reportText } from './print.ts';

const HELP = `usage: weft doctor [options] [ALLOC]

Checks this node: kernel, packet filter, plugins and network lists, bridge and subnet, Consul DNS, capacity and leaks. Changes
nothing without --fix. With an allocation id, or the beginning of one, also shows where the sidecar's logs are, and their ends.

  --fix                  apply safe fixes, which one command undoes; asks first on a terminal
  --json                 one JSON document
  --consul ADDR          HTTP address of the local Consul agent (default CONSUL_HTTP_ADDR, 127.0.0.1:8500)
  --dns IP:PORT          Consul DNS address that Nomad hands out (default: found as Nomad finds it)
  --cni-path DIR:DIR     Nomad's cni_path (default /opt/cni/bin:/usr/libexec/cni)
  --cni-config-dir DIR   Nomad's cni_config_dir (default /opt/cni/config)
  --nomad-data-dir DIR   Nomad's data_dir (default /opt/nomad/data, /opt/nomad, /var/lib/nomad)

Exit status: 0 no problem; 1 warnings; 2 errors or wrong usage
`;

const OPTIONS = {
  fix: { type: 'boolean' },
  json: { type: 'boolean' },
  consul: { type: 'string' },
  dns: { type: 'string' },
  'cni-path': { type: 'string' },
  'cni-config-dir': { type: 'string' },
  'nomad-data-dir': { type: 'string', multiple: true },
  help: { type: 'boolean', short: 'h' },
} as const;

/** Those that wait for programs and servers come last: while the others run, no answer can be read. */
const CHECKS: readonly Check<Host>[] = [
  ...KERNEL_CHECKS,
  ...PACKET_FILTER_CHECKS,
  ...FIREWALL_CHECKS,
  ...NETWORK_CHECKS,
  ...CAPACITY_CHECKS,
  ...PLUGIN_CHECKS,
  ...CONFIGURATION_CHECKS,
  ...MESH_CHECKS,
];

/** `weft doctor`. @returns the exit code: 0 no problem, 1 warnings, 2 errors */
export async function doctor(argv: readonly string[]): Promise<number> {
  const { values, positionals } = readOptions(argv, OPTIONS, true);
  if (values.help === true) {
    writeAll(1, HELP);
    return 0;
  }
  const [allocation, surplus] = positionals;
  if (surplus !== undefined) throw new UsageError(`unexpected argument "${surplus}"`);
  if (values.consul !== undefined && consulUrl(values.consul) === undefined)
    throw new UsageError(`--consul takes HOST:PORT or a URL, got "${values.consul}"`);
  const options: DoctorOptions = {
    cniPath: (values['cni-path'] ?? '/opt/cni/bin:/usr/libexec/cni').split(':').filter((one) => one !== ''),
    configDir: values['cni-config-dir'] ?? '/opt/cni/config',
    nomadDataDirs: values['nomad-data-dir'] ?? ['/opt/nomad/data', '/opt/nomad', '/var/lib/nomad'],
    consul: values.consul ?? process.env['CONSUL_HTTP_ADDR'] ?? '127.0.0.1:8500',
    dns: values.dns === undefined ? undefined : dnsServer(values.dns),
  };
  const isFixing = values.fix === true;
  let outcome = await examine(new ThisHost(options));
  const fixed = isFixing ? applyFixes(outcome.findings) : [];
  if (fixed.length > 0) outcome = await examine(new ThisHost(options));
  const host = new ThisHost(options);
  const report = reportOf(
    outcome,
    fixed,
    allocation === undefined ? null : allocationReport(host, allocation),
  );
  const width = process.stdout.isTTY ? process.stdout.columns : COLUMNS;
  writeAll(1, values.json === true ? `${JSON.stringify(report, null, 2)}\n` : reportText(report, width));
  return { ok: 0, warnings: 1, errors: 2 }[report.status];
}

const COLUMNS = 120;
/** For what one check waits before its first answer of a server: locks, the kernel, programs. */
const CHECK_LIMIT_MS = 3_000;

interface Outcome {
  readonly findings: readonly Finding[];
  readonly notChecked: readonly NotChecked[];
}

async function examine(host: Host): Promise<Outcome> {
  const progress = new Progress();
  const results = await Promise.allSettled(
    CHECKS.map((check) => {
      progress.step(`checking ${check.name}`);
      return begin(check, host);
    }),
  );
  progress.done();
  const notChecked = results.flatMap((result, at): NotChecked[] => {
    const check = CHECKS[at];
    if (check === undefined || result.status === 'fulfilled') return [];
    return [{ group: check.group, check: check.name, reason: toCniError(result.reason).message }];
  });
  return {
    findings: results.flatMap((result) => (result.status === 'fulfilled' ? result.value : [])),
    notChecked: notChecked.sort((one, other) => GROUPS.indexOf(one.group) - GROUPS.indexOf(other.group)),
  };
}

async function begin({ run }: Check<Host>, host: Host): Promise<readonly Finding[]> {
  return withCallDeadline(() => run(host), CHECK_LIMIT_MS);
}

/** Each one after a question on a terminal. @returns those that were applied */
function applyFixes(findings: readonly Finding[]): Report['fixed'] {
  const isTerminal = process.stdin.isTTY && process.stdout.isTTY;
  const fixed: Report['fixed'] = [];
  for (const { id, what, fix } of findings) {
    if (fix === undefined) continue;
    const { command, undo } = fix;
    if (isTerminal && !confirm(`${what}\n  ${command}\nApply? [y/N] `)) continue;
    try {
      fix.apply();
      fixed.push({ id, command, undo });
    } catch (thrown) {
      writeAll(2, `weft doctor: could not apply "${command}": ${toCniError(thrown).message}\n`);
    }
  }
  return fixed;
}

function confirm(question: string): boolean {
  writeAll(2, question);
  const answer = Buffer.alloc(100);
  return /^y(es)?$/i.test(answer.toString('utf8', 0, readSync(0, answer)).trim());
}

function reportOf(outcome: Outcome, fixed: Report['fixed'], allocation: Report['allocation']): Report {
  const findings = outcome.findings
    .map((finding) => {
      const { id, what, where, remedy, fix } = finding;
      const { group, level, why } = CATALOG[id];
      return { id, group, level, what, where, why, remedy, fixable: fix !== undefined };
    })
    .sort(
      (one, other) =>
        one.level.localeCompare(other.level) || GROUPS.indexOf(one.group) - GROUPS.indexOf(other.group),
    );
  const levels = outcome.findings.map(levelOf);
  return {
    version: manifest.version,
    status: levels.includes('error') ? 'errors' : levels.length > 0 ? 'warnings' : 'ok',
    findings,
    notChecked: [...outcome.notChecked],
    fixed,
    allocation,
  };
}

function dnsServer(text: string): NonNullable<DoctorOptions['dns']> {
  const [, address = '', port = ''] = /^\[?([^\]]*?)\]?:(\d+)$/.exec(text) ?? [];
  const number = Number(port);
  if (parseAddress(address) === undefined || number < 1 || number > 65_535)
    throw new UsageError(`--dns takes IP:PORT, got "${text}"`);
  return { address, port: number };
}
