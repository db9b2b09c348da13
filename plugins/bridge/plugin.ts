import type { Plugin } from '../../shared/cni/plugin.ts';
import { CNI_VERSIONS } from '../../shared/cni/types.ts';
import { add } from './add.ts';
import { check } from './check.ts';
import { configure, type BridgeConfig } from './config.ts';
import { del } from './del.ts';
import { gc } from './gc.ts';
import { status } from './status.ts';

/** Connects containers to a Linux bridge: docs/reference/plugins/bridge.md. */
export const plugin: Plugin<BridgeConfig> = {
  name: 'bridge',
  supportedVersions: CNI_VERSIONS,
  configure,
  add,
  del,
  check,
  gc,
  status,
};
