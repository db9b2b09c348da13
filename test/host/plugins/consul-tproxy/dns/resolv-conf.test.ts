import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import {
  hostResolvConf,
  parseResolvConf,
  renderResolvConf,
} from '../../../../../plugins/consul-tproxy/dns/resolv-conf.ts';
import { suite } from '../../../../support/suite.ts';

const test = suite('resolv.conf');

test('reads what resolv.conf(5) describes', () => {
  const text = [
    '# nameserver 192.0.2.9',
    '; nameserver 192.0.2.8',
    'nameserver 192.0.2.1',
    'nameserver\t2001:db8::1%eth0   # trailing words are no servers',
    ' nameserver 192.0.2.7',
    'nameserver',
    'search a.example   b.example\t.',
    'options ndots:2  edns0',
    'options rotate',
    'sortlist 10.0.0.0',
    'lookup file bind',
  ].join('\n');
  assert.equal(parseResolvConf(text), {
    nameservers: ['192.0.2.1', '2001:db8::1%eth0'],
    search: ['a.example', 'b.example', '.'],
    options: ['ndots:2', 'edns0', 'rotate'],
  });
});

test('of domain and search the last one counts', () => {
  assert.equal(parseResolvConf('search a b\ndomain c d\n').search, ['c']);
  assert.equal(parseResolvConf('domain c\nsearch a b').search, ['a', 'b']);
  assert.equal(parseResolvConf('search a\nsearch').search, []);
});

test('takes Windows line ends, no final newline, and nothing at all', () => {
  assert.equal(parseResolvConf('nameserver 192.0.2.1\r\noptions rotate\r').options, ['rotate']);
  assert.equal(parseResolvConf('nameserver 192.0.2.1\r\n').nameservers, ['192.0.2.1']);
  assert.equal(parseResolvConf(''), { nameservers: [], search: [], options: [] });
});

test('what is written is read back', () => {
  const conf = {
    nameservers: ['192.0.2.1', 'fd00::1'],
    search: ['a.example', 'b.example'],
    options: ['ndots:2'],
  };
  assert.is(
    renderResolvConf(conf),
    'nameserver 192.0.2.1\nnameserver fd00::1\nsearch a.example b.example\noptions ndots:2\n',
  );
  assert.equal(parseResolvConf(renderResolvConf(conf)), conf);
  assert.is(renderResolvConf({ nameservers: [], search: [], options: [] }), '');
});

test("the host's own: behind systemd's stub is the real one", () => {
  rmSync('/etc/resolv.conf', { force: true });
  writeFileSync('/etc/resolv.conf', 'nameserver 127.0.0.53\nsearch stub.example\n');
  assert.equal(hostResolvConf().search, ['stub.example'], 'nothing behind it');
  mkdirSync('/run/systemd/resolve', { recursive: true });
  writeFileSync('/run/systemd/resolve/resolv.conf', 'nameserver 192.0.2.1\nsearch real.example\n');
  assert.equal(hostResolvConf().search, ['real.example']);
  writeFileSync('/etc/resolv.conf', 'nameserver 127.0.0.53\nnameserver 192.0.2.2\nsearch own.example\n');
  assert.equal(hostResolvConf().search, ['own.example'], 'with a second server the file means itself');
});

test('a host without resolv.conf, with a dangling link, or a folder in its place has no preferences', () => {
  const none = { nameservers: [], search: [], options: [] };
  rmSync('/etc/resolv.conf', { force: true });
  assert.equal(hostResolvConf(), none);
  symlinkSync('/nowhere', '/etc/resolv.conf');
  assert.equal(hostResolvConf(), none);
  rmSync('/etc/resolv.conf');
  mkdirSync('/etc/resolv.conf');
  assert.equal(hostResolvConf(), none);
  rmSync('/etc/resolv.conf', { recursive: true });
});

test.run();
