import { get as getHttp, type IncomingMessage } from 'node:http';
import { get as getHttps } from 'node:https';
import { readFileSync } from 'node:fs';
import * as z from 'zod/mini';
import { isLoopback, parseAddress, withoutPrefixLength } from '../../shared/net/address.ts';
import type { AddressInfo } from '../../shared/kernel/rtnetlink/addresses.ts';
import { defaultRoutes, type RoutingTable } from './uplinks.ts';

/** What Nomad reads of Consul's agent (client/fingerprint/consul.go). */
export interface ConsulAgent {
  readonly dnsPort: number;
  /** Addresses that the DNS server listens on, without port, in Consul's order. */
  readonly dnsAddresses: readonly string[];
  readonly recursors: readonly string[];
  /** With the dot at its end. */
  readonly domain: string;
}

interface HostAddresses extends RoutingTable {
  addresses(): readonly AddressInfo[];
}

/** The local agent. @throws Error that says why it is not known */
export async function askConsul(address: string): Promise<ConsulAgent> {
  const url = consulUrl(address);
  if (url === undefined) throw new Error(`"${address}" is no address of an HTTP server`);
  const { status, body } = await fetchText(url);
  if (status === 403) throw new Error(`${url.origin} wants a token with agent:read; set CONSUL_HTTP_TOKEN`);
  if (status !== 200) throw new Error(`${url.origin} answered /v1/agent/self with HTTP status ${status}`);
  const parsed = z.safeParse(selfSchema, parsedJson(body));
  if (!parsed.success)
    throw new Error(`${url.origin} is no Consul agent: unexpected answer to /v1/agent/self`);
  const { DNSPort, DNSAddrs, DNSRecursors, DNSDomain } = parsed.data.DebugConfig;
  return {
    dnsPort: DNSPort,
    dnsAddresses: [...new Set((DNSAddrs ?? []).flatMap(hostOf))],
    recursors: DNSRecursors ?? [],
    domain: DNSDomain.endsWith('.') ? DNSDomain : `${DNSDomain}.`,
  };
}

/** @param address `127.0.0.1:8500`, `https://consul.example` @returns undefined if it is neither */
export function consulUrl(address: string): URL | undefined {
  return URL.parse('/v1/agent/self', address.includes('://') ? address : `http://${address}`) ?? undefined;
}

/**
 * The address that Nomad hands to allocations with transparent proxy: the first one that is no loopback address; for an unspecified one, the
 * host's own on the default route.
 * @returns undefined when Nomad hands out none
 */
export function handedOutAddress(host: HostAddresses, agent: ConsulAgent): string | undefined {
  for (const text of agent.dnsAddresses) {
    const address = parseAddress(text);
    if (address === undefined || isLoopback(address)) continue;
    return address.value === 0n ? ownAddress(host) : text;
  }
  return undefined;
}

function ownAddress(host: HostAddresses): string | undefined {
  const uplinks = defaultRoutes(host, 'ipv4').map(({ index }) => index);
  const own = host
    .addresses()
    .find(({ index, family, scope }) => uplinks.includes(index) && family === 'ipv4' && scope === 0);
  return own === undefined ? undefined : withoutPrefixLength(own.address);
}

const selfSchema = z.object({
  DebugConfig: z.object({
    DNSPort: z._default(z.int(), 0),
    /** `udp://192.168.1.117:8600` */
    DNSAddrs: z.nullish(z.array(z.string())),
    DNSRecursors: z.nullish(z.array(z.string())),
    DNSDomain: z._default(z.string(), 'consul.'),
  }),
});

function hostOf(url: string): string[] {
  const text = /^(?:\w+:\/\/)?(.*):\d+$/.exec(url)?.[1]?.replace(/^\[|\]$/g, '');
  return text === undefined ? [] : [text];
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function fetchText(url: URL): Promise<{ status: number; body: string }> {
  const token = process.env['CONSUL_HTTP_TOKEN'];
  const ca = process.env['CONSUL_CACERT'];
  const options = {
    headers: token === undefined ? {} : { 'X-Consul-Token': token },
    agent: false as const,
    ...(ca === undefined ? {} : { ca: readFileSync(ca) }),
    signal: AbortSignal.timeout(HTTP_LIMIT_MS),
  };
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    (url.protocol === 'https:' ? getHttps : getHttp)(url, options, resolve).on('error', reject);
  }).catch((thrown: unknown) => {
    throw new Error(`no Consul agent answers at ${url.origin} (${reasonOf(thrown)})`);
  });
  let body = '';
  for await (const chunk of response as AsyncIterable<Buffer>) {
    body += chunk.toString('utf8');
    if (body.length > ANSWER_LIMIT)
      throw new Error(`${url.origin} sent more than ${ANSWER_LIMIT} characters`);
  }
  return { status: response.statusCode ?? 0, body };
}

const HTTP_LIMIT_MS = 2_000;
const ANSWER_LIMIT = 4 * 2 ** 20;

function reasonOf(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  if (thrown.name === 'AbortError' || thrown.name === 'TimeoutError')
    return `no answer within ${HTTP_LIMIT_MS} ms`;
  return 'code' in thrown && typeof thrown.code === 'string' ? thrown.code : thrown.message;
}
