import { formatAddress } from '../../shared/net/address.ts';
import { configure } from './config.ts';

export interface PublishedPort {
  readonly protocol: string;
  readonly host: number;
  readonly container: number;
  /** Number of ports, counted up from both. */
  readonly range: number;
  /** The host's address; '' for all. */
  readonly address: string;
}

/** What the plugins' configurations of an attachment, with `runtimeConfig`, publish. */
export function publishedPorts(plugins: readonly Readonly<Record<string, unknown>>[]): PublishedPort[] {
  return plugins
    .filter(({ type }) => type === 'portmap')
    .flatMap((raw) => {
      const configured = configure(raw);
      return 'settings' in configured ? (configured.settings.mappings ?? []) : [];
    })
    .map(({ protocol, hostPort, containerPort, range, hostAddress }) => ({
      protocol,
      host: hostPort,
      container: containerPort,
      range,
      address: hostAddress === undefined ? '' : formatAddress(hostAddress),
    }));
}
