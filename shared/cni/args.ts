import { CniCode, CniError } from './errors.ts';
import { show } from '../config/show.ts';

/**
 * Keys that runtimes and operators put into CNI_ARGS for somebody else. The reference refuses them wherever a plugin reads
 * CNI_ARGS, so that `MAC=` for bridge breaks host-local; here they are known, and ignored by those they do not concern.
 */
const FOREIGN =
  /^(IP|MAC|GATEWAY|IgnoreUnknown|K8S_.*|NOMAD_.*|CONSUL_IPTABLES_CONFIG|CONSUL_NFTABLES_CONFIG)$/;

/**
 * CNI_ARGS for plugins that want to look, without judging it: `K=V;K=V`, split at the first `=` of each pair so that a
 * value may hold more of them; what is no pair is left out. The last one of a repeated key counts.
 */
export function splitArgs(text: string): Map<string, string> {
  return new Map(pairs(text).flatMap(({ key, value }) => (key === undefined ? [] : [[key, value]])));
}

/**
 * CNI_ARGS for plugins that depend on it: the same map, after refusing what is no pair and keys that nobody knows,
 * unless `IgnoreUnknown=1|true` is among them. Keys are case-sensitive.
 * @param text Invocation.environment['CNI_ARGS']
 * @param known the keys that the plugin reads
 */
export function readArgs(text: string | undefined, known: readonly string[]): Map<string, string> {
  const found = pairs(text ?? '');
  const broken = found.find(({ key }) => key === undefined);
  if (broken !== undefined) {
    throw new CniError(CniCode.InvalidEnvironment, `ARGS: invalid pair ${show(broken.text)}`, {
      details: 'CNI_ARGS is a list of KEY=VALUE, separated by ";"',
    });
  }
  const args = splitArgs(text ?? '');
  if (ignoresUnknown(args)) return args;
  const unknown = found.filter(({ key }) => !known.includes(key ?? '') && !FOREIGN.test(key ?? ''));
  if (unknown.length > 0) {
    throw new CniError(
      CniCode.InvalidEnvironment,
      `ARGS: unknown args [${unknown.map((pair) => show(pair.text)).join(' ')}]`,
      { details: `known here: ${known.join(', ')}; IgnoreUnknown=1 in CNI_ARGS lets others pass` },
    );
  }
  return args;
}

interface Pair {
  readonly text: string;
  readonly key: string | undefined;
  readonly value: string;
}

/** Empty pairs are none: a trailing `;`, and the empty CNI_ARGS that Nomad sends with DEL. */
function pairs(text: string): Pair[] {
  const texts = text.split(';').filter((pair) => pair !== '');
  return texts.map((pair) => {
    const at = pair.indexOf('=');
    if (at < 1) return { text: pair, key: undefined, value: '' };
    return { text: pair, key: pair.slice(0, at), value: pair.slice(at + 1) };
  });
}

function ignoresUnknown(args: ReadonlyMap<string, string>): boolean {
  const value = args.get('IgnoreUnknown');
  if (value === undefined || /^(0|false)$/i.test(value)) return false;
  if (/^(1|true)$/i.test(value)) return true;
  throw new CniError(
    CniCode.InvalidEnvironment,
    `IgnoreUnknown in CNI_ARGS must be 1, true, 0 or false, got ${show(value)}`,
  );
}
