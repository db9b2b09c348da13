import type { Invocation } from '../../shared/cni/plugin.ts';
import type { UndoStack } from '../../shared/cni/undo.ts';
import { deleteLink } from '../../shared/kernel/rtnetlink/links.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import type { Bridge } from './bridge-link.ts';
import type { BridgeConfig } from './config.ts';
import type { ContainerSide } from './container.ts';
import type { Ipam } from './ipam.ts';
import type { Pair } from './pair.ts';

/** What one ADD works with once the pair is plugged in. */
export interface AddContext {
  readonly call: Invocation<BridgeConfig>;
  readonly ipam: Ipam | undefined;
  readonly host: Rtnetlink;
  readonly side: ContainerSide;
  readonly bridge: Bridge;
  readonly pair: Pair;
  readonly undo: UndoStack;
}

/** To be pushed on top of an undo that gives the container's addresses free: nobody may get them while this pair lives. */
export function unplugFirst({ host, pair, undo }: AddContext): void {
  undo.push(`interface ${pair.host.name}`, () => deleteLink(host, pair.host.index));
}
