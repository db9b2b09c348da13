import type { Invocation } from '../../shared/cni/plugin.ts';
import type { UndoStack } from '../../shared/cni/undo.ts';
import type { NetworkNamespace } from '../../shared/kernel/namespace.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import type { BridgeConfig } from './config.ts';
import type { Identity } from './identity.ts';
import type { Ipam } from './ipam-plugin.ts';

/** What the steps of ADD and CHECK work with. */
export interface Context {
  readonly call: Invocation<BridgeConfig>;
  readonly identity: Identity;
  readonly namespace: NetworkNamespace;
  /** Rtnetlink in the host's namespace. */
  readonly host: Rtnetlink;
  /** Rtnetlink in the container's namespace. */
  readonly inside: Rtnetlink;
}

export interface AddContext extends Context {
  /** Undefined for a layer-2 network. */
  readonly ipam: Ipam | undefined;
  /** Of the container end. */
  readonly mac: string;
  /** Bytes, of a new bridge and both ends; undefined: the kernel's default. */
  readonly mtu: number | undefined;
  readonly undo: UndoStack;
}
