import { writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { dnsFromResolvConf, parseResolvConf } from '../../../../shared/ipam/ipam.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';

const test = suite('resolvConf');

test('nameservers, search and options add up; the last domain counts; comments and lines of one word are skipped', () => {
  const text = [
    '# comment 1.1.1.1',
    ';nameserver 9.9.9.9',
    'nameserver 10.0.0.1',
    '  nameserver\t10.0.0.2 ignored',
    'nameserver',
    'domain one.example',
    'domain two.example',
    'search a.example b.example',
    'search c.example',
    'options ndots:5 rotate',
    'options edns0',
    'sortlist 1.2.3.4',
    '',
  ].join('\n');
  assert.equal(parseResolvConf(text), {
    nameservers: ['10.0.0.1', '10.0.0.2'],
    domain: 'two.example',
    search: ['a.example', 'b.example', 'c.example'],
    options: ['ndots:5', 'rotate', 'edns0'],
  });
  assert.equal(parseResolvConf(''), {});
});

test('reads the file that is named, if one is', () => {
  writeFileSync('/run/resolv.conf', 'nameserver 10.0.0.9\r\n');
  assert.equal(dnsFromResolvConf('/run/resolv.conf'), { nameservers: ['10.0.0.9'] });
  assert.equal(dnsFromResolvConf(undefined), {});
  const error = thrown(() => dnsFromResolvConf('/nope'));
  assert.is(error.message, 'open /nope: no such file or directory');
  assert.is(error.code, 5);
});

test.run();
