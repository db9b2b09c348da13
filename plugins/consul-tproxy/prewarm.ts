import { parseResolvConf, renderResolvConf } from '../../shared/dns/resolv-conf.ts';
import { operations } from '../../shared/packetfilter/diff.ts';
import { requestsFor } from '../../shared/packetfilter/iptables-nft/requests.ts';
import { emptyTable } from '../../shared/packetfilter/iptables/save.ts';
import { ruleExpressions } from '../../shared/packetfilter/nftables/encode.ts';
import { addChain, addRule } from '../../shared/packetfilter/nftables/messages.ts';
import { encodeTree } from '../../shared/packetfilter/nftables/tree.ts';
import { outcomeOf } from '../../shared/packetfilter/outcome.ts';
import { stateOf } from '../../shared/packetfilter/table.ts';
import { decodeRequest } from './decode-request.ts';
import { differences } from './differences.ts';
import { planDns, standingDns } from './dns-plan.ts';
import { gapsIn, interceptionRules, standingProxy } from './interception.ts';
import { decodeNftRule } from './nft-decode.ts';
import { nftPlan } from './nft-plan.ts';
import { DEFAULT_OPTIONS, readOptions, type TproxyOptions } from './options.ts';
import { planRules, type TablePlan } from './plan.ts';
import type { ProxyRequest } from './request.ts';
import { replaceTable } from './table-change.ts';

/**
 * Goes once through what ADD and CHECK compute, on tables that are not there, while the startup snapshot is built: the functions are then in
 * the snapshot already compiled. Touches neither kernel nor file.
 */
export function prewarmTproxy(): void {
  const names = { passwd: () => '', services: () => '' };
  const request = decodeRequest('CONSUL_IPTABLES_CONFIG', CONFIG, names, () => undefined);
  for (const own of CHOICES) {
    const options = {
      ...DEFAULT_OPTIONS,
      ...readOptions({ type: 'consul-cni', log_level: 'debug', ...own }),
    };
    rehearse(request, options);
  }
  renderResolvConf(parseResolvConf('nameserver 192.0.2.1\nsearch example.org\noptions ndots:2\n'));
}

const CHOICES: readonly Partial<TproxyOptions>[] = [
  {},
  { ipv6: 'redirect', udp: 'reject', dnsCapture: 'all' },
];

/** As Nomad writes it. */
const CONFIG = JSON.stringify({
  ConsulDNSIP: '192.0.2.1',
  ConsulDNSPort: 8600,
  ProxyUserID: '101',
  ProxyInboundPort: 20000,
  ProxyOutboundPort: 15001,
  ExcludeInboundPorts: ['9002'],
  ExcludeOutboundPorts: null,
  ExcludeOutboundCIDRs: ['10.0.0.0/8', 'fd00::/8'],
  ExcludeUIDs: ['200-210'],
  NetNS: '/var/run/netns/x',
  IptablesProvider: null,
});

function rehearse(request: ProxyRequest, options: TproxyOptions): void {
  const plan = planRules(request, options);
  planDns(request, options);
  const standing = plan.map(rehearseIptables);
  rehearseNftables(plan);
  differences(plan, standing);
  standingDns(standing);
  gapsIn(standing[0], interceptionRules(request));
  standingProxy(standing[0]);
}

/** The first ADD, then the second. @returns the table as it stands */
function rehearseIptables(plan: TablePlan): ReturnType<typeof stateOf> {
  const change = replaceTable(plan);
  const before = emptyTable(plan.family, plan.table);
  const after = outcomeOf(before, change.plan(stateOf(before)));
  requestsFor(before, operations(before, after));
  const again = outcomeOf(after, change.plan(stateOf(after)));
  requestsFor(after, operations(after, again));
  return stateOf(after);
}

function rehearseNftables(plan: readonly TablePlan[]): void {
  const { chains, rules } = nftPlan(plan);
  chains.map(addChain);
  for (const rule of rules) {
    const expressions = ruleExpressions(rule);
    addRule(rule.chain, { expressions }, 'last');
    decodeNftRule(encodeTree(expressions));
  }
}
