import './reflect-metadata.ts';
import * as x509 from '@peculiar/x509';
import { randomBytes, type webcrypto } from 'node:crypto';

/** A sidecar's certificate and key (PEM). Created for each run of the example, never written to disk. */
export interface Identity {
  readonly service: string;
  readonly trustDomain: string;
  readonly certificate: string;
  readonly key: string;
  readonly authority: string;
}

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const DAY_MS = 86_400_000;
/** Certificates are not renewed: longer than the example ever runs. */
const LIFETIME_MS = 30 * DAY_MS;

/**
 * An identity for each service under an authority that exists only for this call: its key is discarded on return,
 * so no further identity can be issued.
 * @param trustDomain ends the URI identities: `11111111-2222-3333-4444-555555555555.consul`
 */
export async function makeIdentities(trustDomain: string, services: readonly string[]): Promise<Identity[]> {
  x509.cryptoProvider.set(crypto);
  const keys = await newKeys();
  const validity = { notBefore: new Date(Date.now() - 60_000), notAfter: new Date(Date.now() + LIFETIME_MS) };
  const authority = await x509.X509CertificateGenerator.createSelfSigned({
    ...validity,
    serialNumber: serial(),
    name: 'CN=Consul CA stand-in',
    keys,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      new x509.SubjectAlternativeNameExtension([{ type: 'url', value: `spiffe://${trustDomain}` }]),
    ],
  });
  return Promise.all(services.map((service) => identity(service)));

  async function identity(service: string): Promise<Identity> {
    const own = await newKeys();
    const certificate = await x509.X509CertificateGenerator.create({
      ...validity,
      serialNumber: serial(),
      subject: '',
      issuer: authority.subject,
      publicKey: own.publicKey,
      signingKey: keys.privateKey,
      signingAlgorithm: ALGORITHM,
      extensions: leafExtensions(spiffeId(trustDomain, service)),
    });
    const key = await exportKey(own.privateKey);
    return {
      service,
      trustDomain,
      certificate: certificate.toString('pem'),
      key,
      authority: authority.toString('pem'),
    };
  }
}

function leafExtensions(uri: string): x509.Extension[] {
  return [
    new x509.BasicConstraintsExtension(false, undefined, true),
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
    new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
    // Critical, because the subject is empty (RFC 5280 section 4.2.1.6).
    new x509.SubjectAlternativeNameExtension([{ type: 'url', value: uri }], true),
  ];
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await crypto.subtle.exportKey('pkcs8', key));
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN PRIVATE KEY-----\n${lines.join('\n')}\n-----END PRIVATE KEY-----\n`;
}

/** Positive: the first bit of a serial number is its sign. */
function serial(): string {
  const bytes = randomBytes(16);
  bytes[0] = (bytes[0] ?? 0) & 0x7f;
  return bytes.toString('hex');
}

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
