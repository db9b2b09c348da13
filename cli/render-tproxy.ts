import { readFileSync } from 'node:fs';
import { backendName } from '../plugins/consul-tproxy/backends.ts';
import { configure, withNodeDefaults } from '../plugins/consul-tproxy/config.ts';
import { nftPlan } from '../plugins/consul-tproxy/nftables/plan.ts';
import { planRules, type TablePlan } from '../plugins/consul-tproxy/plan.ts';
import { decodeRequest, HOST_NAME_FILES } from '../plugins/consul-tproxy/request.ts';
import { readOptions, UsageError } from '../shared/config/command-line.ts';
import { requireSettings } from '../shared/config/decode.ts';
import { writeAll } from '../shared/kernel/stdio.ts';
import { ruleText } from '../shared/packetfilter/iptables/render.ts';
import { chainCommand, ruleCommand, tableCommand } from '../shared/packetfilter/nftables/text.ts';

const HELP = `usage: weft render tproxy --config JSON|@FILE [options]

Prints the rules that consul-tproxy would add to an allocation's namespace. Changes nothing.

  --config JSON|@FILE     CONSUL_IPTABLES_CONFIG as Nomad sends it, or a file with it
  --backend NAME          iptables: for iptables-restore --noflush; nftables: for nft -f
  --exemptions full|consul
  --ipv6 reject|redirect|bypass
  --udp bypass|reject
  --dns-capture consul|all

Defaults come from /etc/weft/weft.json, then from the plugin.

Exit status: 0 the rules are on stdout; 1 invalid configuration; 2 wrong usage
`;

const OPTIONS = {
  config: { type: 'string' },
  backend: { type: 'string' },
  exemptions: { type: 'string' },
  ipv6: { type: 'string' },
  udp: { type: 'string' },
  'dns-capture': { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const;

/** `weft render tproxy`. @returns the exit code */
export function render(argv: readonly string[]): number {
  const { values, positionals } = readOptions(argv, OPTIONS, true);
  if (values.help === true) {
    writeAll(1, HELP);
    return 0;
  }
  if (positionals.length !== 1 || positionals[0] !== 'tproxy')
    throw new UsageError('missing or unknown subject; use: weft render tproxy');
  const { config, backend, exemptions, ipv6, udp, 'dns-capture': dnsCapture } = values;
  if (config === undefined) throw new UsageError('--config is missing');
  const own = requireSettings('consul-tproxy', configure({ backend, exemptions, ipv6, udp, dnsCapture }));
  const options = withNodeDefaults(own);
  const request = decodeRequest('CONSUL_IPTABLES_CONFIG', textOf(config), HOST_NAME_FILES, (line) =>
    writeAll(2, `${line}\n`),
  );
  const plan = planRules(request, options);
  writeAll(1, backendName(options.backend) === 'nftables' ? nftScript(plan) : restoreScripts(plan));
  return 0;
}

function textOf(config: string): string {
  return config.startsWith('@') ? readFileSync(config.slice(1), 'utf8') : config;
}

/** For `iptables-restore --noflush` and ip6tables-restore: both families in one text, a comment before each. */
function restoreScripts(tables: readonly TablePlan[]): string {
  return (['ipv4', 'ipv6'] as const)
    .flatMap((family) => {
      const own = tables.filter((plan) => plan.family === family);
      const tool = family === 'ipv4' ? 'iptables-restore' : 'ip6tables-restore';
      return own.length === 0 ? [] : [`# ${tool} --noflush`, ...own.flatMap(tableLines)];
    })
    .map((line) => `${line}\n`)
    .join('');
}

function tableLines({ table, chains, hooks }: TablePlan): string[] {
  return [
    `*${table}`,
    ...chains.map(({ chain }) => `:${chain} - [0:0]`),
    ...[...hooks, ...chains].flatMap(({ chain, rules }) =>
      rules.map((rule) => `-A ${chain} ${ruleText(rule)}`),
    ),
    'COMMIT',
  ];
}

/** For `nft -f`: replaces the table in one transaction, whether or not it exists. */
function nftScript(tables: readonly TablePlan[]): string {
  const { table, chains, rules } = nftPlan(tables);
  const lines = [
    tableCommand(table),
    `delete table ${table.family} ${table.name}`,
    tableCommand(table),
    ...chains.map(chainCommand),
    ...rules.map(ruleCommand),
  ];
  return lines.map((line) => `${line}\n`).join('');
}
