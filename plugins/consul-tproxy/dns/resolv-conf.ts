import { CniCode, CniError } from '../../../shared/cni/errors.ts';
import type { CniDns } from '../../../shared/cni/results.ts';
import { show } from '../../../shared/config/json.ts';
import { readRegularFile } from '../../../shared/kernel/files.ts';

/** The contents of a resolv.conf(5), in file order. `sortlist` and unknown keywords are left out. */
export interface ResolvConf {
  readonly nameservers: readonly string[];
  /** From `search`, or from `domain`, which is a search list of one; the last of either counts. */
  readonly search: readonly string[];
  readonly options: readonly string[];
}

/** Never fails: like the C library, it ignores what it does not know. */
export function parseResolvConf(text: string): ResolvConf {
  const nameservers: string[] = [];
  const options: string[] = [];
  let search: string[] = [];
  for (const line of text.split('\n')) {
    // As in the C library, keywords start in the first column.
    const [keyword, ...values] = line.split(/[ \t\r]+/).filter((part, at) => part !== '' || at === 0);
    if (keyword === 'nameserver') nameservers.push(...values.slice(0, 1));
    if (keyword === 'search') search = values;
    if (keyword === 'domain') search = values.slice(0, 1);
    if (keyword === 'options') options.push(...values);
  }
  return { nameservers, search, options };
}

/** The file's text, in the order and spelling of the file that Nomad gives to tasks. Values must hold no line breaks. */
export function renderResolvConf({ nameservers, search, options }: ResolvConf): string {
  const lines = [
    ...nameservers.map((server) => `nameserver ${server}`),
    ...(search.length === 0 ? [] : [`search ${search.join(' ')}`]),
    ...(options.length === 0 ? [] : [`options ${options.join(' ')}`]),
  ];
  return lines.map((line) => `${line}\n`).join('');
}

/**
 * Refuses values that would add lines to a resolv.conf: the one that this plugin writes, and the one that the runtime writes from the result.
 * @param dns of prevResult
 * @throws CniError 7 naming the first such value
 */
export function requireSingleLines(dns: CniDns): void {
  const values = [
    ...(dns.nameservers ?? []).map((value) => ['nameservers', value] as const),
    ...(dns.domain === undefined ? [] : [['domain', dns.domain] as const]),
    ...(dns.search ?? []).map((value) => ['search', value] as const),
    ...(dns.options ?? []).map((value) => ['options', value] as const),
  ];
  for (const [key, value] of values) {
    if (!CONTROL_CHARACTER.test(value)) continue;
    throw new CniError(
      CniCode.InvalidNetworkConfig,
      `dns.${key} in prevResult must not contain line breaks or control characters, got ${show(value)}`,
      {
        details:
          'the plugin before consul-tproxy in the list reported it; check its resolvConf or dns setting',
      },
    );
  }
}

/** A tab only separates values in resolv.conf(5). */
const CONTROL_CHARACTER = /[\0-\x08\x0a-\x1f\x7f\x85\u2028\u2029]/u;

/**
 * The resolver configuration of the host; empty where there is none. Where /etc/resolv.conf has only systemd's stub, which listens on the
 * host's loopback, the file behind it counts (Nomad reads the same two).
 */
export function hostResolvConf(): ResolvConf {
  const host = parseResolvConf(readIfPossible('/etc/resolv.conf') ?? '');
  if (host.nameservers.length !== 1 || host.nameservers[0] !== SYSTEMD_STUB) return host;
  const behind = readIfPossible('/run/systemd/resolve/resolv.conf');
  return behind === undefined ? host : parseResolvConf(behind);
}

const SYSTEMD_STUB = '127.0.0.53';

/** Undefined for a dangling link, a directory, a FIFO and other things that the C library cannot read either. */
function readIfPossible(file: string): string | undefined {
  try {
    return readRegularFile(file);
  } catch (thrown) {
    if (thrown instanceof CniError) return undefined;
    throw thrown;
  }
}
