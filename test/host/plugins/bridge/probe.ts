/**
 * Asks an echo for each line `ADDRESS PATIENCE_MS` of stdin, every 2 ms until it answers.
 * Prints `MILLISECONDS WHO`: how long it took, and the address that the echo saw; or `none`.
 */
import { createSocket } from 'node:dgram';
import { createInterface } from 'node:readline';

process.stdout.write('ready\n');
createInterface({ input: process.stdin }).on('line', (line) => {
  const [address = '', patience = '1000'] = line.split(' ');
  void probe(address, Number(patience)).then((answer) => process.stdout.write(`${answer}\n`));
});

function probe(address: string, patience: number): Promise<string> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  const began = performance.now();
  return new Promise((resolve) => {
    const finish = (answer: string): void => {
      clearInterval(timer);
      clearTimeout(limit);
      socket.close();
      resolve(answer);
    };
    const send = (): void => socket.send('?', 7777, address, () => undefined);
    const timer = setInterval(send, 2);
    const limit = setTimeout(() => finish('none'), patience);
    socket.on('error', () => undefined);
    socket.on('message', (text) => finish(`${(performance.now() - began).toFixed(1)} ${text.toString()}`));
    send();
  });
}
