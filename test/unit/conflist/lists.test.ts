import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { loadNetworkList } from '../../../conflist/network-list.ts';
import { suite } from '../../support/suite.ts';

/**
 * What Nomad's client generates (its structures' field order, `json.MarshalIndent` with tabs), written down a second time from
 * the contract, so that neither the files nor this can change alone.
 */
interface Variant {
  readonly hairpin?: boolean;
  readonly ipv6?: boolean;
  readonly transparentProxy?: boolean;
}

function nomadList({ hairpin = false, ipv6 = false, transparentProxy = false }: Variant): object {
  return {
    cniVersion: '0.4.0',
    name: 'nomad',
    plugins: [
      { type: 'loopback' },
      {
        type: 'bridge',
        bridge: 'nomad',
        ipMasq: true,
        isGateway: true,
        forceAddress: true,
        hairpinMode: hairpin,
        ipam: {
          type: 'host-local',
          ranges: [[{ subnet: '172.26.64.0/20' }], ...(ipv6 ? [[{ subnet: '3fff:cab0:0d13::/120' }]] : [])],
          routes: [{ dst: '0.0.0.0/0' }, ...(ipv6 ? [{ dst: '::/0' }] : [])],
          dataDir: '/var/run/cni',
        },
      },
      { type: 'firewall', backend: 'iptables', iptablesAdminChainName: 'NOMAD-ADMIN' },
      { type: 'portmap', capabilities: { portMappings: true }, snat: true },
      ...(transparentProxy ? [{ type: 'consul-cni', log_level: 'debug' }] : []),
    ],
  };
}

const test = suite("Nomad's network lists");
const folder = resolve(import.meta.dirname, '../../../conflist');

const lists: [file: string, variant: Variant][] = [
  ['nomad.conflist', {}],
  ['nomad-dual-stack.conflist', { ipv6: true }],
  ['nomad-hairpin.conflist', { hairpin: true }],
  ['nomad-tproxy.conflist', { transparentProxy: true }],
];

for (const [file, variant] of lists) {
  test(`${file} is what Nomad generates, byte for byte`, () => {
    const expected = `${JSON.stringify(nomadList(variant), null, '\t')}\n`;
    assert.is(readFileSync(`${folder}/${file}`, 'utf8'), expected);
  });

  test(`${file} passes the schema`, () => {
    const list = loadNetworkList(`${folder}/${file}`);
    assert.is(list.name, 'nomad');
    assert.is(list.cniVersion, '0.4.0');
    assert.is(list.plugins.length, variant.transparentProxy === true ? 5 : 4);
    assert.is(list.plugins.find(({ type }) => type === 'portmap')?.capabilities['portMappings'], true);
  });
}

test.run();
