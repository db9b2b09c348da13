/** One ICMP echo and its answer; minimal hosts lack ping(8). usage: ping.ts ADDRESS. Exit code 0 when the answer comes. */
import { libc } from '../../../../../shared/kernel/libc.ts';
import { addressBytes, parseAddress } from '../../../../../shared/net/address.ts';

const address = parseAddress(process.argv[2] ?? '');
if (address === undefined) throw new Error('usage: ping.ts ADDRESS');
const isIpv4 = address.family === 'ipv4';

/** AF_INET 2, AF_INET6 10; SOCK_RAW 3; IPPROTO_ICMP 1, IPPROTO_ICMPV6 58 */
const fd = libc().socket(isIpv4 ? 2 : 10, 3, isIpv4 ? 1 : 58);
/** SOL_SOCKET 1, SO_RCVTIMEO 20: struct timeval */
libc().setsockopt(fd, 1, 20, Buffer.from(BigInt64Array.of(1n, 0n).buffer), 16);

/** Echo request: type (8 or 128), code 0, checksum (16), identifier (16), sequence (16). The kernel fills in the checksum of ICMPv6. */
const echo = Buffer.from([isIpv4 ? 8 : 128, 0, 0, 0, 0x77, 0x66, 0, 1]);
if (isIpv4) echo.writeUInt16BE(0xffff - [0, 2, 4, 6].reduce((sum, at) => sum + echo.readUInt16BE(at), 0), 2);

/** sockaddr_in: family, port, address; sockaddr_in6: family, port, flow, address, scope */
const to = Buffer.alloc(isIpv4 ? 16 : 28);
to.writeUInt16LE(isIpv4 ? 2 : 10, 0);
to.set(addressBytes(address), isIpv4 ? 4 : 8);
libc().sendto(fd, echo, echo.length, 0, to, to.length);

const answer = Buffer.alloc(1500);
const deadline = Date.now() + 5000;
process.exitCode = 1;
while (process.exitCode === 1 && Date.now() < deadline) {
  const length = libc().recv(fd, answer, 1500, 0);
  const reply = answer.subarray(isIpv4 ? 20 : 0, Math.max(length, 0));
  // Echo reply: 0 or 129, with our identifier.
  if (reply[0] === (isIpv4 ? 0 : 129) && reply[4] === 0x77 && reply[5] === 0x66) process.exitCode = 0;
}
