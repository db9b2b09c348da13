import type { Trace } from '../../shared/attachments/leftover.ts';
import { isNetworkNamespace } from '../../shared/kernel/namespace.ts';
import { ownedResolvConfs } from './dns/netns-resolv-conf.ts';

/** The resolv.conf of named namespaces; rules end with their namespace. */
export function traces(): Trace[] {
  return ownedResolvConfs().map(({ name, owner, writtenAtMs }) => ({
    ...owner,
    what: `/etc/netns/${name}/resolv.conf`,
    namespace: isNetworkNamespace(`/run/netns/${name}`) ? 'exists' : 'gone',
    addresses: () => [],
    writtenAtMs,
  }));
}
