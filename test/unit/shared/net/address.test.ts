import { isIPv4, isIPv6 } from 'node:net';
import * as assert from 'uvu/assert';
import {
  addressBytes,
  addressFromBytes,
  canonicalAddress,
  compareAddresses,
  containsAddress,
  firstAddress,
  formatAddress,
  formatCidr,
  formatMac,
  isGlobalUnicast,
  isLoopback,
  lastAddress,
  maskToPrefix,
  networkOf,
  nextAddress,
  overlaps,
  parseAddress,
  parseCidr,
  parseMac,
  type Cidr,
  type IpAddress,
} from '../../../../shared/net/address.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('addresses');

test('canonical text is what Go prints', () => {
  const printed: [string, string][] = [
    ['10.1.2.3', '10.1.2.3'],
    ['0.0.0.0', '0.0.0.0'],
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['2001:DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0db8::0001', '2001:db8::1'],
    ['::ffff:10.1.2.3', '10.1.2.3'],
    ['::ffff:a01:203', '10.1.2.3'],
    ['::10.1.2.3', '::a01:203'],
    ['1:2:3:4:5:6:1.2.3.4', '1:2:3:4:5:6:102:304'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
    ['0:0:1::', '0:0:1::'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
  ];
  for (const [text, expected] of printed) assert.is(canonicalAddress(text), expected, text);
});

test('refuses what Go refuses', () => {
  const refused = [
    ...[
      '',
      ' ',
      '10.1.2',
      '10.1.2.3.4',
      '10.1.2.256',
      '10.01.2.3',
      '010.1.2.3',
      '10.1.2.3 ',
      ' 10.1.2.3',
      '1.2.3.-4',
    ],
    ...['0x0a.1.2.3', '10.1.2.', '.1.2.3', '10..2.3', '1e1.2.3.4', '١.2.3.4'],
    ...[
      ':',
      ':::',
      '1:',
      ':1',
      '::1%eth0',
      'fe80::1%1',
      '1:2:3:4:5:6:7',
      '1:2:3:4:5:6:7:8:9',
      '1::2::3',
      '12345::',
    ],
    ...[
      '1:2:3:4:5:6:7:8::',
      '::1:2:3:4:5:6:7:8',
      'g::',
      '1.2.3.4::',
      '::1.2.3.4:5',
      '1:2:3:4:5:6:7:1.2.3.4',
      '::01.2.3.4',
    ],
    ...['10.1.2.3/24', '00001::'],
  ];
  for (const text of refused) assert.is(parseAddress(text), undefined, JSON.stringify(text));
});

test('prefixes as ParseCIDR reads them', () => {
  const printed: [string, string | undefined][] = [
    ['10.1.2.3/24', '10.1.2.3/24'],
    ['10.1.2.3/024', '10.1.2.3/24'],
    ['0.0.0.0/0', '0.0.0.0/0'],
    ['fd00::1/64', 'fd00::1/64'],
    ['::ffff:10.1.2.3/120', '10.1.2.3/24'],
    ['::ffff:10.1.2.3/90', undefined],
    ['10.1.2.3', undefined],
    ['10.1.2.3/', undefined],
    ['10.1.2.3/33', undefined],
    ['fd00::/129', undefined],
    ['10.1.2.3/-1', undefined],
    ['10.1.2.3/+8', undefined],
    ['10.1.2.3/8/8', undefined],
    ['10.1.2.3/ 8', undefined],
    ['10.1.2.3/255.255.255.0', undefined],
    ['/24', undefined],
    ['fe80::1%eth0/64', undefined],
  ];
  for (const [text, expected] of printed) {
    const cidr = parseCidr(text);
    assert.is(cidr === undefined ? undefined : formatCidr(cidr), expected, text);
  }
});

test('edges of a network', () => {
  const edges = (text: string): string[] =>
    [networkOf(cidr(text)).address, firstAddress(cidr(text)), lastAddress(cidr(text))].map(formatAddress);
  assert.equal(edges('10.1.2.3/24'), ['10.1.2.0', '10.1.2.0', '10.1.2.255']);
  assert.equal(edges('10.1.2.3/32'), ['10.1.2.3', '10.1.2.3', '10.1.2.3']);
  assert.equal(edges('10.1.2.3/0'), ['0.0.0.0', '0.0.0.0', '255.255.255.255']);
  assert.equal(edges('fd00:1::5/64'), ['fd00:1::', 'fd00:1::', 'fd00:1::ffff:ffff:ffff:ffff']);
  assert.is(formatCidr(networkOf(cidr('172.26.64.5/20'))), '172.26.64.0/20');
});

test('containment, overlap and order', () => {
  assert.ok(containsAddress(cidr('10.1.2.9/24'), address('10.1.2.255')));
  assert.not(containsAddress(cidr('10.1.2.0/24'), address('10.1.3.0')));
  assert.not(containsAddress(cidr('::/0'), address('10.1.3.0')));
  assert.ok(containsAddress(cidr('0.0.0.0/0'), address('255.255.255.255')));
  assert.ok(overlaps(cidr('10.0.0.0/8'), cidr('10.200.0.0/16')));
  assert.ok(overlaps(cidr('10.200.0.0/16'), cidr('10.0.0.0/8')));
  assert.not(overlaps(cidr('10.0.0.0/24'), cidr('10.0.1.0/24')));
  const sorted = ['fd00::1', '10.0.0.10', '10.0.0.9', '::1']
    .map(address)
    .sort(compareAddresses)
    .map(formatAddress);
  assert.equal(sorted, ['10.0.0.9', '10.0.0.10', '::1', 'fd00::1']);
  assert.is(compareAddresses(address('::1'), address('::1')), 0);
});

test('stepping stops at both ends of the family', () => {
  assert.is(formatAddress(nextAddress(address('10.1.2.255')) as IpAddress), '10.1.3.0');
  assert.is(nextAddress(address('255.255.255.255')), undefined);
  assert.is(nextAddress(address('ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff')), undefined);
});

test('bytes in network order, both ways', () => {
  assert.equal(Array.from(addressBytes(address('10.1.2.3'))), [10, 1, 2, 3]);
  assert.equal(Array.from(addressBytes(address('fd00::1'))), [0xfd, ...new Array<number>(14).fill(0), 1]);
  assert.is(addressFromBytes(Uint8Array.of(1, 2, 3)), undefined);
  const mapped = Uint8Array.from([...new Array<number>(10).fill(0), 255, 255, 10, 0, 0, 1]);
  assert.is(formatAddress(addressFromBytes(mapped) as IpAddress), '10.0.0.1');
});

test('random addresses survive text and bytes, and the text is accepted by Node', () => {
  for (let round = 0; round < 3000; round++) {
    const bytes = Uint8Array.from({ length: round % 3 === 0 ? 4 : 16 }, () =>
      Math.random() < 0.5 ? 0 : Math.random() * 256,
    );
    const parsed = addressFromBytes(bytes) as IpAddress;
    const text = formatAddress(parsed);
    assert.ok(parsed.family === 'ipv4' ? isIPv4(text) : isIPv6(text), text);
    assert.equal(parseAddress(text), parsed, text);
    assert.equal(addressFromBytes(addressBytes(parsed)), parsed, text);
    assert.equal(parseAddress(expanded(bytes)), parsed, text);
  }
});

test('random texts are accepted exactly when Node accepts them', () => {
  const alphabet = ['0', '1', 'f', '10', '255', '256', 'ffff', '00', ':', '::', '.', ':', '.', 'g', '%'];
  for (let round = 0; round < 20_000; round++) {
    const pick = (): string => alphabet[Math.floor(Math.random() * alphabet.length)] as string;
    const text = Array.from({ length: Math.floor(Math.random() * 17) }, pick).join('');
    const expected = (isIPv4(text) || isIPv6(text)) && !text.includes('%');
    assert.is(parseAddress(text) !== undefined, expected, text);
  }
});

test('masks and prefix lengths', () => {
  const masks = ['0.0.0.0', '255.255.240.0', '255.255.255.255', 'ffff:ffff:ffff:ffff::'];
  assert.equal(masks.map(maskToPrefix), [0, 20, 32, 64]);
  assert.is(maskToPrefix('255.0.255.0'), undefined);
  assert.is(maskToPrefix('x'), undefined);
});

test('which addresses are global', () => {
  for (const text of ['10.1.2.3', '8.8.8.8', 'fd00::1', '2001:db8::1'])
    assert.ok(isGlobalUnicast(address(text)), text);
  for (const text of [
    '127.0.0.1',
    '169.254.1.1',
    '224.0.0.1',
    '255.255.255.255',
    '0.0.0.0',
    '::1',
    'fe80::1',
    'ff02::1',
    '::',
  ])
    assert.not(isGlobalUnicast(address(text)), text);
  assert.ok(isLoopback(address('127.5.5.5')));
  assert.ok(isLoopback(address('::1')));
  assert.not(isLoopback(address('10.0.0.1')));
});

test('MAC addresses in the three spellings Go reads', () => {
  for (const text of ['0A:1b:2C:3d:4E:5f', '0a-1b-2c-3d-4e-5f', '0a1b.2c3d.4e5f'])
    assert.is(formatMac(parseMac(text) as Uint8Array), '0a:1b:2c:3d:4e:5f', text);
  for (const text of [
    '',
    '0a:1b:2c:3d:4e',
    '0a:1b:2c:3d:4e:5f:60',
    '0a:1b-2c:3d:4e:5f',
    'ga:1b:2c:3d:4e:5f',
    '0a1b2c3d4e5f',
    'a:b:c:d:e:f',
  ])
    assert.is(parseMac(text), undefined, text);
});

test.run();

function address(text: string): IpAddress {
  const parsed = parseAddress(text);
  if (parsed === undefined) throw new Error(`test uses a bad address: ${text}`);
  return parsed;
}

function cidr(text: string): Cidr {
  const parsed = parseCidr(text);
  if (parsed === undefined) throw new Error(`test uses a bad prefix: ${text}`);
  return parsed;
}

/** The longest spelling: every group, upper case. */
function expanded(bytes: Uint8Array): string {
  if (bytes.length === 4) return Array.from(bytes).join('.');
  const hex = Buffer.from(bytes).toString('hex').toUpperCase();
  return (hex.match(/.{4}/g) as string[]).join(':');
}
