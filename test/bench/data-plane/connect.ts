/**
 * usage: connect.ts IPV4 PORT COUNT
 * Opens COUNT TCP connections one after the other and ends each by a reset, so that no port stays in TIME_WAIT.
 * Prints microseconds per connection, from socket() to the completed handshake and the reset.
 */
import { closeSync } from 'node:fs';
import { checked, libc } from '../../../shared/kernel/libc.ts';

const [address = '', port = '0', count = '0'] = process.argv.slice(2);
const AF_INET = 2;
const SOCK_STREAM = 1;
const SOL_SOCKET = 1;
const SO_LINGER = 13;

/** struct sockaddr_in: family (host order), port (be16), address, eight bytes of padding */
const peer = Buffer.alloc(16);
peer.writeUInt16LE(AF_INET, 0);
peer.writeUInt16BE(Number(port), 2);
address.split('.').forEach((byte, at) => peer.writeUInt8(Number(byte), 4 + at));
/** struct linger { onoff, linger }: on, for no time, which is a reset */
const reset = Buffer.of(1, 0, 0, 0, 0, 0, 0, 0);

connect(50);
const began = process.hrtime.bigint();
connect(Number(count));
console.log(String(Number(process.hrtime.bigint() - began) / 1000 / Number(count)));

function connect(times: number): void {
  for (let time = 0; time < times; time++) {
    const socket = checked('socket', libc().socket(AF_INET, SOCK_STREAM, 0));
    checked('setsockopt', libc().setsockopt(socket, SOL_SOCKET, SO_LINGER, reset, reset.length));
    checked(`connect to ${address}:${port}`, libc().connect(socket, peer, peer.length));
    closeSync(socket);
  }
}
