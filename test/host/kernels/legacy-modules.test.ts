/** iptables-legacy on a kernel whose modules for it are not loaded yet: `npm run vm` runs this on Debian's. */
import { readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import type { CniResult } from '../../../shared/cni/results.ts';
import { succeed } from '../../support/plugin.ts';
import { useHostVariant } from '../../support/port-host.ts';
import { suite } from '../../support/suite.ts';
import { cleanHost, makeNamespace, network, sh, succeeds } from '../plugins/bridge/host.ts';

const test = suite('iptables-legacy modules on demand', { limit: 60 });
test.before(cleanHost);
test.after(cleanHost);

const TITLE = 'ADD loads them: masquerading and a published port; CHECK and DEL find the rules';
const TABLES = [
  'iptable_nat',
  'ip6table_nat',
  'iptable_filter',
  'ip6table_filter',
  'ip_tables',
  'ip6_tables',
];
const isLoaded = (): boolean => /^ip_tables /m.test(readFileSync('/proc/modules', 'latin1'));

if (!succeeds('modinfo ip_tables | grep -q "^filename: *[^(]"')) {
  test.skip(TITLE, 'this kernel has no module ip_tables: it is built in, or missing');
} else {
  test(TITLE, () => {
    sh(`modprobe -r ${TABLES.join(' ')}`);
    assert.not.ok(isLoaded(), 'the modules were unloaded');
    useHostVariant('legacy');
    const c1 = { id: 'cont1', netns: makeNamespace('c1') };
    const config = network({ cniVersion: '1.0.0', ipMasq: true });
    const result = succeed('bridge', 'ADD', c1, config) as CniResult;
    assert.ok(isLoaded());
    const published = {
      ...{ cniVersion: '1.0.0', name: config['name'], type: 'portmap', prevResult: result },
      runtimeConfig: { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] },
    };
    succeed('portmap', 'ADD', c1, published);
    const rules = (): string => sh('iptables-legacy-save -t nat');
    assert.match(rules(), /-A CNI-[0-9a-f]{24} .*-j MASQUERADE/);
    assert.match(rules(), /--dport 8080 -j DNAT/);
    succeed('bridge', 'CHECK', c1, { ...config, prevResult: result });
    succeed('portmap', 'CHECK', c1, published);
    succeed('portmap', 'DEL', c1, published);
    succeed('bridge', 'DEL', c1, { ...config, prevResult: result });
    assert.not.match(rules(), /--dport 8080|CNI-[0-9a-f]{24}/);
  });
}

test.run();
