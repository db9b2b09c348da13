/** Rules as the kernel lists them: bytes of many shapes, and listings made of them. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { Listing } from '../../../../../shared/kernel/netlink/conversation.ts';
import { NftConnection } from '../../../../../shared/packetfilter/nftables/connection.ts';
import { Message } from '../../../../../shared/packetfilter/nftables/messages.ts';
import { attributeOf, encodeTree } from '../../../../../shared/packetfilter/nftables/nlattr.ts';
import { FILTER_RULES, NAT_RULES } from '../../../../support/packetfilter/driver-cases.ts';

/** What the suite never writes, is spelled in another way, or looks like what is looked for and is not. */
const FOREIGN = [
  '-p esp -j ACCEPT',
  '-j OTHER',
  '-g OTHER',
  '-p tcp -g CNI-DN-1',
  '-j OTHER-2',
  '-m comment --comment "to OTHER" -j ACCEPT',
  '-m comment --comment "CNI-DN-1" -j OTHER',
  '-m statistic --mode random --probability 0.5 -j CNI-DN-1',
  '-s 10.0.0.2/32 -d 10.88.0.2/32 -j OTHER',
  '-s 10.88.0.0/16 -j CNI-DN-1',
  '-p tcp -m tcp --sport 80 -j OTHER',
  '-p tcp -m multiport --sports 80,443 -j OTHER',
  '-p tcp -m multiport ! --dports 80,443 -j OTHER',
  '-p tcp -m multiport --ports 80 -j OTHER',
  '-p tcp -m multiport --dports 80 -j OTHER',
  '-p udp -m multiport --dports 53,67:69,8080 -j CNI-DN-1',
  '-p tcp -m multiport --dports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15 -j CNI-DN-1',
  '-p tcp -m multiport --dports 1:2,3:4,5:6,7:8,9:10,11:12,13:14,80 -j CNI-DN-1',
  '-p tcp -m multiport --dports 80 -m multiport --dports 8080:8090 -j CNI-DN-1',
  '-p tcp -m comment --comment multiport -m multiport --dports 8080 -j OTHER',
  '-p tcp -m multiport --dports 8080 -m comment --comment "dnat name: \\"net1\\" id: \\"cont1\\"" -j CNI-DN-1',
  '-p tcp -m comment --comment "dnat name: \\"net1\\" id: \\"cont1\\"" -m multiport --dports 8080 -j CNI-DN-1',
  '-m comment --comment "name: \\"net1\\" id: \\"cont1\\"" -j OTHER',
  '-s 10.0.0.2/32 -m comment --comment "name: \\"net1\\" id: \\"cont1\\"" -j CNI-1',
  '-m conntrack --ctstate ESTABLISHED,RELATED -m comment --comment x -j ACCEPT',
  '-m comment --comment x -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
];

const NATIVE = [
  'ip saddr { 10.0.0.2, 10.88.0.2 } jump OTHER',
  'tcp dport vmap { 80 : jump OTHER, 443 : goto CNI-DN-1 }',
  'ip daddr 10.0.0.2 tcp dport 80 counter jump OTHER comment "OTHER"',
  'ip daddr 10.0.0.2 accept',
];

/**
 * NFTA_RULE_EXPRESSIONS of IPv4 rules: as iptables and nft wrote them into this kernel, and as iptables 1.8.11 did elsewhere. Writes into the
 * namespace's tables filter and nat.
 */
export function listedExpressions(): Buffer[] {
  const restored = (table: string, rules: readonly string[]): string =>
    [
      `*${table}`,
      ...CHAINS.map((chain) => `:${chain} - [0:0]`),
      ...rules.map((rule) => `-A LIST ${rule}`),
    ].join('\n');
  execFileSync('iptables-restore', [], {
    input: `${restored('nat', [...NAT_RULES, ...FOREIGN])}\nCOMMIT\n${restored('filter', FILTER_RULES)}\nCOMMIT\n`,
  });
  for (const rule of NATIVE) execFileSync('nft', `add rule ip nat LIST ${rule}`.split(' '));
  using connection = NftConnection.open();
  const standing = ['nat', 'filter'].flatMap((table) =>
    connection.dump('rules', Message.getRule, 'ip', [
      [1, table],
      [2, 'LIST'],
    ]),
  );
  return [...standing.map((body) => attributeOf(body, 4) ?? Buffer.alloc(0)), ...recorded()];
}

export const CHAINS = ['LIST', 'OTHER', 'OTHER-2', 'CNI-1', 'CNI-DN-1'];

function recorded(): Buffer[] {
  return readFileSync(
    resolve(
      import.meta.dirname,
      '../../../../unit/shared/packetfilter/iptables-nft/iptables-1.8.11.golden.txt',
    ),
    'utf8',
  )
    .split('\n')
    .flatMap((line) => {
      const hex = /^ipv4 ([0-9a-f]+) /.exec(line)?.[1];
      return hex === undefined ? [] : [Buffer.from(hex, 'hex')];
    });
}

export interface Listed {
  readonly chain: string;
  readonly handle: number;
  readonly expressions: Buffer;
}

/** @param attempts rules of each datagram of the kernel's; in all but the last, the list changes before its end */
export function listingOf(...attempts: readonly (readonly (readonly Listed[])[])[]): Listing {
  const all = attempts.flatMap((datagrams, at) => [
    ...datagrams.map((rules) => Buffer.concat(rules.map(messageOf))),
    message(DONE, Buffer.alloc(4), at < attempts.length - 1 ? INTERRUPTED : 0),
  ]);
  return new Listing(
    { send: () => 1, receiveDatagram: () => all.shift() ?? Buffer.alloc(0) },
    { what: 'list rules', type: 0, flags: 0, body: Buffer.alloc(0) },
  );
}

/** As nf_tables_fill_rule_info puts it together; every other rule tells of the one before it. */
function messageOf({ chain, handle, expressions }: Listed): Buffer {
  const attributes = encodeTree([
    [1, 'nat'],
    [2, chain],
    [3, BigInt(handle)],
    ...(handle % 2 === 0 ? [[6, BigInt(handle - 1)] as const] : []),
    [4, expressions],
  ]);
  return message(NEW_RULE, Buffer.concat([Buffer.of(2, 0, 0, 0), attributes]));
}

function message(type: number, body: Buffer, flags = 0): Buffer {
  const out = Buffer.alloc(16 + body.length);
  out.writeUInt32LE(out.length, 0);
  out.writeUInt16LE(type, 4);
  out.writeUInt16LE(0x802 | flags, 6);
  body.copy(out, 16);
  return out;
}

const NEW_RULE = 0xa06;
const DONE = 3;
const INTERRUPTED = 0x10;
