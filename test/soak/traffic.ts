import { HOST, OUTSIDE } from '../e2e/support/client-host.ts';
import { addressesOf, type Container } from './container.ts';
import { Violation } from './model.ts';
import { SOMEWHERE, type World } from './world.ts';

/** Where a container listens for its first published port, which Nomad excludes from the redirect. */
export const APP_PORT = 9002;

/** A container answers on its published port, outside and from the host, and reaches a machine outside under the host's address. */
export async function verifyTraffic({ outside, inside: agent }: World, container: Container): Promise<void> {
  const { id, ports, result } = container;
  await agent.enter(id);
  try {
    await agent.serve(APP_PORT, id);
    const [port] = ports;
    if (port !== undefined)
      expect(`${HOST.ipv4}:${port}`, await outside.tcp(HOST.ipv4, port), `${id} ${OUTSIDE.ipv4}`);
    expect(OUTSIDE.ipv4, await agent.tcp(OUTSIDE.ipv4, SOMEWHERE), `outside ${HOST.ipv4}`);
    const ipv6 = (result === undefined ? [] : addressesOf(result)).find((address) => address.includes(':'));
    if (ipv6 === undefined) return;
    expect(OUTSIDE.ipv6, await agent.tcp(OUTSIDE.ipv6, SOMEWHERE), `outside ${HOST.ipv6}`);
    if (port !== undefined)
      expect(`[${HOST.ipv6}]:${port}`, await outside.tcp(HOST.ipv6, port), `${id} ${OUTSIDE.ipv6}`);
  } finally {
    await agent.close();
    await agent.enter(undefined);
  }

  function expect(target: string, answer: string, wanted: string): void {
    if (!answer.startsWith(wanted))
      throw new Violation(
        `traffic of ${id} (${container.list}) to ${target}: got "${answer}", expected "${wanted}"`,
      );
  }
}
