/** Identities of the mesh as Consul writes them into certificates: one URI in the subject's alternative names. */
export function spiffeId(trustDomain: string, service: string): string {
  return `spiffe://${trustDomain}/ns/default/dc/dc1/svc/${service}`;
}

/** The service that a peer's certificate names, if it is of this trust domain and names exactly one. */
export function serviceOf(trustDomain: string, subjectAltName: string | undefined): string | undefined {
  const uris = (subjectAltName ?? '').split(', ').filter((name) => name.startsWith('URI:'));
  const prefix = `URI:${spiffeId(trustDomain, '')}`;
  const [uri] = uris;
  if (uris.length !== 1 || uri === undefined || !uri.startsWith(prefix)) return undefined;
  const service = uri.slice(prefix.length);
  return /^[a-z0-9-]+$/.test(service) ? service : undefined;
}

/** The name by which Consul's proxies ask for a service in the TLS greeting. */
export function serverName(trustDomain: string, service: string): string {
  return `${service}.default.dc1.internal.${trustDomain}`;
}
