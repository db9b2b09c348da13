import { readFileSync } from 'node:fs';
import { CniCode, CniError } from '../cni/errors.ts';
import type { CniDns } from '../cni/results.ts';

/**
 * The dns part of a result from a file in the format of resolv.conf(5), as the reference reads it: `nameserver`, `search` and
 * `options` add up, the last `domain` counts, lines of one word and comments are passed over.
 * @throws CniError 5 when it cannot be read
 */
export function dnsFromResolvConf(file: string | undefined): CniDns {
  return file === undefined ? {} : parseResolvConf(read(file));
}

export function parseResolvConf(text: string): CniDns {
  const dns: CniDns = {};
  for (const line of text.split('\n')) {
    const [keyword = '', ...words] = line.trim().split(/\s+/);
    const [first] = words;
    if (first === undefined || /^[#;]/.test(keyword)) continue;
    if (keyword === 'nameserver') dns.nameservers = [...(dns.nameservers ?? []), first];
    if (keyword === 'domain') dns.domain = first;
    if (keyword === 'search') dns.search = [...(dns.search ?? []), ...words];
    if (keyword === 'options') dns.options = [...(dns.options ?? []), ...words];
  }
  return dns;
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (thrown) {
    const { code, message } = thrown as NodeJS.ErrnoException;
    const reason = code === 'ENOENT' ? 'no such file or directory' : message;
    throw new CniError(CniCode.IoFailure, `open ${file}: ${reason}`, {
      details: '"resolvConf" of the ipam configuration must name a readable file',
      cause: thrown,
    });
  }
}
