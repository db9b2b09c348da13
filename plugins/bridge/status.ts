import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import { hasNftables } from '../../shared/packetfilter/nftables/change.ts';
import type { BridgeConfig } from './config.ts';
import { ipamOf } from './ipam.ts';

/** Whether an ADD could succeed: the address management's answer, and what the configuration needs of the kernel. */
export function status(call: Invocation<BridgeConfig>): void {
  const { macspoofchk, ipMasq, ipMasqBackend } = call.config;
  if ((macspoofchk || (ipMasq && ipMasqBackend === 'nftables')) && !hasNftables()) {
    throw new CniError(CniCode.PluginNotAvailable, 'this kernel has no nf_tables', {
      details: `${macspoofchk ? 'macspoofchk' : 'ipMasqBackend nftables'} needs it: load the module nf_tables`,
    });
  }
  ipamOf(call)?.status();
}
