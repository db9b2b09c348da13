import type { Plugin } from '../../shared/cni/plugin.ts';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { configureIpam, type IpamConfig } from '../../shared/ipam/config.ts';
import { ipamAdd, ipamCheck, ipamDel, ipamGc, ipamStatus } from '../../shared/ipam/ipam.ts';

/** Addresses from ranges, leased in files that the reference's host-local understands; all of it lives in shared/ipam. */
export const plugin: Plugin<IpamConfig> = {
  name: 'host-local',
  supportedVersions: CNI_VERSIONS,
  configure: configureIpam,
  add: (call) => {
    const { ips, routes, dns } = ipamAdd(call);
    return { interfaces: [], ips, routes, dns };
  },
  del: ipamDel,
  check: ipamCheck,
  gc: ipamGc,
  status: ipamStatus,
};
