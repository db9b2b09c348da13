import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { closeSync } from 'node:fs';
import { checked, libc } from '../../../../shared/kernel/libc.ts';
import { inNamespace } from '../../../../shared/kernel/namespace.ts';
import { findProgram } from '../../../../shared/process/run-program.ts';
import { TIME_FACTOR } from '../../../support/suite.ts';
import { run } from '../../../support/variants.ts';

/**
 * SCTP without SCTP: many kernels have no such sockets (those that have are asked for an association below), but every kernel forwards and translates its packets. The
 * first packet of an association is sent by a raw socket, and counted where it arrives.
 */
export function sendInit(namespace: string, address: string, port: number): void {
  const to = Buffer.alloc(16);
  to.writeUInt16LE(AF_INET, 0);
  to.set(address.split('.').map(Number), 4);
  inNamespace(`/run/netns/${namespace}`, () => {
    const fd = checked('socket', libc().socket(AF_INET, SOCK_RAW, IPPROTO_SCTP));
    try {
      const packet = initPacket(port);
      checked('sendto', libc().sendto(fd, packet, packet.length, 0, to, to.length));
    } finally {
      closeSync(fd);
    }
  });
}

/** How many packets for this port came into the namespace since it was asked for the first time. */
export function arrivals(namespace: string, port: number): number {
  const nft = (...words: string[]): string => run('ip', 'netns', 'exec', namespace, 'nft', ...words);
  nft('add table inet seen');
  nft('add chain inet seen input { type filter hook input priority 0 ; }');
  const seen = (): string | undefined => /counter packets (\d+)/.exec(nft('list chain inet seen input'))?.[1];
  if (seen() === undefined) nft(`add rule inet seen input meta l4proto sctp sctp dport ${port} counter`);
  return Number(seen());
}

/** Why there can be no SCTP sockets here; undefined where there can. */
export function missingForSctp(): string | undefined {
  try {
    closeSync(checked('socket', libc().socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP)));
  } catch {
    return 'this kernel has no SCTP sockets';
  }
  return findProgram('socat') === undefined ? 'socat is not installed' : undefined;
}

/** A server that answers a line with `heard LINE`. */
export function listenSctp(namespace: string, port: number): ChildProcess {
  const answer = 'SYSTEM:read line; echo "heard $line"';
  return spawn('ip', ['netns', 'exec', namespace, 'socat', `SCTP4-LISTEN:${port},fork`, answer]);
}

/**
 * @returns what the server answers to a line; '' without an association. The server may still be starting. `ignoreeof`: SCTP has no half-closed
 * associations, and the end of the input would end this one.
 */
export function askSctp(namespace: string, address: string, port: number, text: string): string {
  const words = ['netns', 'exec', namespace, 'socat', '-t', '1', '-,ignoreeof', `SCTP4:${address}:${port}`];
  for (let tries = 0; tries < 5; tries++) {
    const { stdout } = spawnSync('ip', words, {
      input: `${text}\n`,
      encoding: 'utf8',
      timeout: 2_000 * TIME_FACTOR,
    });
    if (stdout !== '') return stdout.trim();
  }
  return '';
}

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_RAW = 3;
const IPPROTO_SCTP = 132;

/**
 * RFC 9260, 3.1 and 3.3.2: connection tracking takes nothing less for the beginning of an association.
 * ```
 * | source port | destination port | tag 0 | CRC32c | type 1 | flags | length 20 | initiate tag | window | streams out, in | first TSN |
 * ```
 */
function initPacket(port: number): Buffer {
  const packet = Buffer.alloc(32);
  packet.writeUInt16BE(40_000, 0);
  packet.writeUInt16BE(port, 2);
  packet.writeUInt8(1, 12);
  packet.writeUInt16BE(20, 14);
  packet.writeUInt32BE(0x1234, 16);
  packet.writeUInt32BE(65_536, 20);
  packet.writeUInt16BE(1, 24);
  packet.writeUInt16BE(1, 26);
  packet.writeUInt32BE(1, 28);
  packet.writeUInt32LE(crc32c(packet), 8);
  return packet;
}

function crc32c(bytes: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}
