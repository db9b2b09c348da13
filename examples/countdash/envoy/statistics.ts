import type { ProbeAnswer, ProbeConfig } from '../programs.ts';
import { ADMIN, AUTHORIZATION, PASSTHROUGH, PUBLIC } from './bootstrap.ts';

/** Counters of one Envoy since it started. */
export interface EnvoyStatistics {
  /** Connections to other services of the mesh, and the TLS handshakes completed on them. */
  readonly callsOut: number;
  readonly handshakesOut: number;
  /** Connections passed through to destinations outside of the mesh. */
  readonly passedThrough: number;
  /** Connections to the public listener, the TLS handshakes completed on them, and those that failed. */
  readonly callsIn: number;
  readonly handshakesIn: number;
  readonly failedIn: number;
  /** Connections that the intentions allowed and denied (RBAC filter). */
  readonly allowed: number;
  readonly denied: number;
}

/** @param ask runs a probe in the sidecar's namespace */
export async function readStatistics(
  ask: (config: ProbeConfig) => Promise<ProbeAnswer>,
): Promise<EnvoyStatistics> {
  const { answer, error } = await ask({ ask: 'http', ...ADMIN, path: '/stats?usedonly' });
  if (answer === undefined) throw new Error(`Envoy's admin interface does not answer: ${error}`);
  return parseStatistics(answer);
}

/** @param text lines of `name: value`, as /stats prints them; counters that never counted are absent */
export function parseStatistics(text: string): EnvoyStatistics {
  const counters = new Map(
    [...text.matchAll(/^(\S+): (\d+)\r?$/gm)].map(([, name = '', value]) => [name, Number(value)]),
  );
  const sum = (pattern: RegExp): number =>
    [...counters].filter(([name]) => pattern.test(name)).reduce((total, [, value]) => total + value, 0);
  const count = (name: string): number => counters.get(name) ?? 0;
  return {
    callsOut: sum(new RegExp(`^cluster\\.(?!${PASSTHROUGH}|local_app)[^.]+\\.upstream_cx_total$`)),
    handshakesOut: sum(/^cluster\.[^.]+\.ssl\.handshake$/),
    passedThrough: count(`cluster.${PASSTHROUGH}.upstream_cx_total`),
    callsIn: count(`listener.${PUBLIC}.downstream_cx_total`),
    handshakesIn: count(`listener.${PUBLIC}.ssl.handshake`),
    failedIn:
      count(`listener.${PUBLIC}.ssl.connection_error`) + count(`listener.${PUBLIC}.ssl.fail_verify_error`),
    allowed: count(`${AUTHORIZATION}.rbac.allowed`),
    denied: count(`${AUTHORIZATION}.rbac.denied`),
  };
}
