/**
 * Opens connections and sends datagrams, one after the other, and prints for each what came back: the JSON of listen.ts, or the error's
 * code. usage: probe.ts UID '[{"protocol","host","port"}]'
 */
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';

export interface Probe {
  readonly protocol: 'tcp' | 'udp';
  readonly host: string;
  readonly port: number;
}

/** Long enough for a machine under load; no probe of a passing test waits for it. */
const PATIENCE_MS = 5000;

const [, , uid = '0', spec = '[]'] = process.argv;
process.setuid?.(Number(uid));
for (const probe of JSON.parse(spec) as Probe[]) {
  const answer = await (probe.protocol === 'tcp' ? overTcp(probe) : overUdp(probe));
  process.stdout.write(`${answer.trim()}\n`);
}

function overTcp({ host, port }: Probe): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const socket = connect({ host, port, autoSelectFamily: false });
    socket.setTimeout(PATIENCE_MS, () => socket.destroy(Object.assign(new Error(), { code: 'TIMEOUT' })));
    socket.on('data', (chunk) => (text += chunk.toString()));
    socket.on('error', (error: NodeJS.ErrnoException) => resolve(JSON.stringify({ error: error.code })));
    socket.on('end', () => resolve(text === '' ? JSON.stringify({ error: 'EMPTY' }) : text));
  });
}

/** Connected, so that an ICMP refusal comes back as an error. */
function overUdp({ host, port }: Probe): Promise<string> {
  return new Promise((resolve) => {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
    const finish = (answer: object | string): void => {
      clearTimeout(timer);
      socket.close();
      resolve(typeof answer === 'string' ? answer : JSON.stringify(answer));
    };
    const timer = setTimeout(() => finish({ error: 'TIMEOUT' }), PATIENCE_MS);
    socket.on('error', (error: NodeJS.ErrnoException) => finish({ error: error.code }));
    socket.on('message', (message) => finish(message.toString()));
    socket.connect(port, host, () => socket.send('?'));
  });
}
