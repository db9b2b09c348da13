import { connect } from 'node:net';
import { createServer, type TLSSocket } from 'node:tls';
import { listening } from './listening.ts';
import type { SidecarConfig, Tell } from './sidecar.ts';
import { serviceOf } from './spiffe.ts';
import { splice } from './splice.ts';

/**
 * The public listener: only peers with a certificate of our authority get a word in, and of those only the services that the
 * intentions allow reach the program.
 */
export async function serveInbound({ identity, inbound }: SidecarConfig, tell: Tell): Promise<void> {
  const server = createServer({
    cert: identity.certificate,
    key: identity.key,
    ca: identity.authority,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.3',
    allowHalfOpen: true,
    handshakeTimeout: 5000,
  });
  server.on('secureConnection', (socket) => admit(socket));
  server.on('tlsClientError', (_error, socket) => {
    tell(`closed a connection to ${identity.service} that brought no certificate of the mesh`);
    socket.destroy();
  });
  await listening(server, { port: inbound.port });

  function admit(socket: TLSSocket): void {
    socket.on('error', () => socket.destroy());
    const caller = serviceOf(identity.trustDomain, socket.getPeerCertificate().subjectaltname);
    if (caller !== undefined && inbound.allowed.includes(caller)) {
      splice(socket, connect({ host: '127.0.0.1', port: inbound.appPort, allowHalfOpen: true }));
      return;
    }
    tell(`intention: ${caller ?? 'an unknown identity'} -> ${identity.service} denied`);
    socket.destroy();
  }
}
