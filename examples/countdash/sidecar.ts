import { serveInbound } from './sidecar-inbound.ts';
import { serveTransparent, serveUpstreams } from './sidecar-outbound.ts';

/** What a sidecar proves itself with; made new for each run of the example, never on disk. All PEM. */
export interface Identity {
  readonly service: string;
  readonly trustDomain: string;
  readonly certificate: string;
  readonly key: string;
  readonly authority: string;
}

/** A service that may be called through the mesh, and where its own sidecar listens for the mesh. */
export interface Upstream {
  readonly service: string;
  readonly virtualAddress: string;
  readonly host: string;
  readonly port: number;
}

export interface SidecarConfig {
  readonly identity: Identity;
  readonly inbound: {
    readonly port: number;
    /** Where the group's own program listens, on the loopback. */
    readonly appPort: number;
    /** Services whose calls are let through; all others are refused. */
    readonly allowed: readonly string[];
  };
  readonly outbound:
    | { readonly mode: 'transparent'; readonly port: number; readonly upstreams: readonly Upstream[] }
    | { readonly mode: 'upstreams'; readonly listeners: readonly { port: number; upstream: Upstream }[] };
}

/** What a sidecar has to tell: one line of its log. */
export type Tell = (line: string) => void;

/**
 * The example's stand-in for Envoy: takes the group's outgoing connections, brings those to services of the mesh over mutual
 * TLS to the service's own sidecar, and lets in what the intentions allow. Resolves when it listens everywhere.
 */
export async function serveSidecar(config: SidecarConfig, tell: Tell): Promise<void> {
  await serveInbound(config, tell);
  const { outbound, identity } = config;
  if (outbound.mode === 'transparent')
    await serveTransparent(identity, outbound.port, outbound.upstreams, tell);
  else await serveUpstreams(identity, outbound.listeners, tell);
}
