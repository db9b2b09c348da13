import { readFileSync } from 'node:fs';
import { decodeRequest, HOST_NAME_FILES } from '../plugins/consul-tproxy/decode-request.ts';
import { configure, withNodeDefaults } from '../plugins/consul-tproxy/options.ts';
import { backendName } from '../plugins/consul-tproxy/place.ts';
import { planRules } from '../plugins/consul-tproxy/plan.ts';
import { renderPlan } from '../plugins/consul-tproxy/render.ts';
import { writeAll } from '../shared/kernel/stdio.ts';
import { readOptions, UsageError } from '../shared/config/command-line.ts';
import { requireSettings } from '../shared/config/decode.ts';

const HELP = `usage: weft render tproxy --config JSON|@FILE [options]

Prints the rules that consul-tproxy would put into an allocation's namespace, and touches nothing.

  --config JSON|@FILE     CONSUL_IPTABLES_CONFIG as Nomad sends it, or a file that holds it
  --backend NAME          iptables: for iptables-restore --noflush; nftables: for nft -f
  --exemptions full|consul
  --ipv6 reject|redirect|bypass
  --udp bypass|reject
  --dns-capture consul|all

What is not given is taken from /etc/weft/weft.json, then from the plugin's defaults.
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
    throw new UsageError('say what to render: weft render tproxy');
  const { config, backend, exemptions, ipv6, udp, 'dns-capture': dnsCapture } = values;
  if (config === undefined) throw new UsageError('--config is missing');
  const options = withNodeDefaults(
    requireSettings('consul-tproxy', configure({ backend, exemptions, ipv6, udp, dnsCapture })),
  );
  const request = decodeRequest('CONSUL_IPTABLES_CONFIG', textOf(config), HOST_NAME_FILES, (line) =>
    writeAll(2, `${line}\n`),
  );
  writeAll(1, renderPlan(planRules(request, options), backendName(options.backend)));
  return 0;
}

function textOf(config: string): string {
  return config.startsWith('@') ? readFileSync(config.slice(1), 'utf8') : config;
}
