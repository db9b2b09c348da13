import * as assert from 'uvu/assert';
import { parseCidr } from '../../shared/net/address.ts';

type Members = Record<string, unknown>;

/**
 * Whether a document is a result of `version` as CNI's specification of that version has it, written down here anew and not
 * through the code under test.
 */
export function assertShape(version: string, stdout: string): Members {
  const document = JSON.parse(stdout) as Members;
  assert.is(document['cniVersion'], version);
  assert.is(stdout, JSON.stringify(document, null, 4), 'indented by four, no line end');
  if (/^0\.[12]/.test(version)) assertOldest(document);
  else if (version.startsWith('0')) assertMiddle(document);
  else assertNewest(document);
  return document;
}

function assertOldest(document: Members): void {
  onlyKeys(document, ['cniVersion', 'ip4', 'ip6', 'dns']);
  assert.ok(document['ip4'] ?? document['ip6'], 'an address');
  assert.type(document['dns'], 'object');
  for (const [key, family] of [
    ['ip4', 'ipv4'],
    ['ip6', 'ipv6'],
  ] as const) {
    const entry = document[key] as Members | undefined;
    if (entry === undefined) continue;
    onlyKeys(entry, ['ip', 'gateway', 'routes']);
    assert.is(parseCidr(String(entry['ip']))?.address.family, family);
    for (const route of list(entry, 'routes')) onlyKeys(route, ['dst', 'gw']);
  }
}

function assertMiddle(document: Members): void {
  onlyKeys(document, ['cniVersion', 'interfaces', 'ips', 'routes', 'dns']);
  assert.type(document['dns'], 'object');
  for (const entry of list(document, 'interfaces')) onlyKeys(entry, ['name', 'mac', 'sandbox']);
  for (const ip of list(document, 'ips')) {
    onlyKeys(ip, ['version', 'interface', 'address', 'gateway']);
    const family = parseCidr(String(ip['address']))?.address.family;
    assert.is(ip['version'], family === 'ipv6' ? '6' : '4');
  }
  assertIndexes(document);
}

function assertNewest(document: Members): void {
  onlyKeys(document, ['cniVersion', 'interfaces', 'ips', 'routes', 'dns']);
  if ('dns' in document)
    assert.ok(Object.keys(document['dns'] as object).length > 0, 'dns is left out when empty');
  for (const entry of list(document, 'interfaces')) {
    onlyKeys(entry, ['name', 'mac', 'mtu', 'sandbox', 'socketPath', 'pciID']);
  }
  for (const ip of list(document, 'ips')) onlyKeys(ip, ['interface', 'address', 'gateway']);
  for (const members of [document, ...list(document, 'interfaces'), ...list(document, 'ips')]) {
    assert.equal(Object.keys(members), Object.keys(members).sort(), 'sorted keys');
  }
  assertIndexes(document);
}

/** Nomad's agent panics on an index that is out of range. */
function assertIndexes(document: Members): void {
  const count = list(document, 'interfaces').length;
  for (const { interface: index } of list(document, 'ips')) {
    assert.ok(
      index === undefined || (Number.isInteger(index) && Number(index) >= 0 && Number(index) < count),
    );
  }
}

function list(members: Members, key: string): Members[] {
  if (!(key in members)) return [];
  const entries = members[key] as Members[];
  assert.ok(entries.length > 0, `${key} is left out when empty`);
  return entries;
}

function onlyKeys(members: Members, known: readonly string[]): void {
  for (const key of Object.keys(members)) assert.ok(known.includes(key), `unexpected key ${key}`);
}
