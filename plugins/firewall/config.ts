import * as z from 'zod/mini';
import { decodeSettings, type Configured } from '../../shared/config/decode.ts';
import { isChainName } from '../../shared/packetfilter/names.ts';

/** The firewall plugin's part of a network's configuration, defaults filled in (docs/reference/plugins/firewall.md). */
export interface FirewallSettings {
  /** As written; the reference chooses a back end itself if it does not know the name. */
  readonly backend: string;
  /** The operator's own chain, evaluated before any rule of the plugin. */
  readonly adminChain: string;
  readonly ingressPolicy: IngressPolicy;
  /** The firewalld zone that the container's addresses are added to as sources. */
  readonly zone: string;
}

/**
 * Which forwarded packets may reach the containers of a bridge: all (`open`), all but those of other bridges (`same-bridge`), or
 * none from any bridge, its own included (`isolated`).
 */
export type IngressPolicy = 'open' | 'same-bridge' | 'isolated';

export function configure(raw: Readonly<Record<string, unknown>>): Configured<FirewallSettings> {
  const decoded = decodeSettings(schema, raw);
  if ('problems' in decoded) {
    const { backend, firewalldZone } = decoded.partial;
    const partial = {
      ...(backend !== undefined && { backend }),
      ...(firewalldZone !== undefined && { zone: zoneOf(firewalldZone) }),
    };
    return { problems: decoded.problems, partial };
  }
  const { backend, iptablesAdminChainName, firewalldZone, ingressPolicy } = decoded.value;
  return {
    settings: {
      backend,
      adminChain: iptablesAdminChainName === '' ? DEFAULT_ADMIN_CHAIN : iptablesAdminChainName,
      ingressPolicy: ingressPolicy === '' ? 'open' : ingressPolicy,
      zone: zoneOf(firewalldZone),
    },
  };
}

function zoneOf(text: string): string {
  return text === '' ? DEFAULT_ZONE : text;
}

const DEFAULT_ADMIN_CHAIN = 'CNI-ADMIN';
/** The reference's default; its target is ACCEPT. */
export const DEFAULT_ZONE = 'trusted';

const schema = z.object({
  backend: z._default(z.string(), ''),
  iptablesAdminChainName: z._default(
    z.string().check(
      z.refine((text) => text === '' || isChainName(text), {
        error: 'must be a chain name: at most 28 characters without blanks or quotes',
      }),
    ),
    '',
  ),
  firewalldZone: z._default(z.string(), ''),
  ingressPolicy: z._default(
    z.enum(['', 'open', 'same-bridge', 'isolated'], {
      error: ({ input }) =>
        `"ingressPolicy": unknown ingress policy: ${JSON.stringify(input)}; known are open, same-bridge and isolated`,
    }),
    '',
  ),
});
