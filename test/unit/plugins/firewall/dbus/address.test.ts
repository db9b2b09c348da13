import * as assert from 'uvu/assert';
import { systemBusSocket } from '../../../../../plugins/firewall/firewalld/dbus/address.ts';
import { suite } from '../../../../support/suite.ts';

const test = suite('dbus: where the system bus is');

const CASES: readonly (readonly [string | undefined, string | undefined])[] = [
  [undefined, '/var/run/dbus/system_bus_socket'],
  ['', '/var/run/dbus/system_bus_socket'],
  ['unix:path=/run/dbus/system_bus_socket', '/run/dbus/system_bus_socket'],
  ['unix:guid=1234,path=/tmp/bus', '/tmp/bus'],
  ['unix:path=/tmp/a%20b%2cc', '/tmp/a b,c'],
  ['unix:abstract=/tmp/dbus-x,guid=1', '\0/tmp/dbus-x'],
  ['tcp:host=127.0.0.1,port=1;unix:path=/tmp/second', '/tmp/second'],
  ['unix:tmpdir=/tmp;unix:path=/tmp/third', '/tmp/third'],
  ['tcp:host=127.0.0.1,port=1', undefined],
  ['nonsense', undefined],
];

for (const [given, expected] of CASES) {
  test(given ?? '(not set)', () => {
    assert.is(systemBusSocket({ DBUS_SYSTEM_BUS_ADDRESS: given }), expected);
  });
}

test.run();
