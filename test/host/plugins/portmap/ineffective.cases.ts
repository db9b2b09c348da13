import { spawn } from 'node:child_process';
import * as assert from 'uvu/assert';
import { bad, HOST, resultOf } from '../../../support/port-host.ts';
import { add, call, config, scene, tcp, udp, type Filter } from '../../../support/portmap-scene.ts';

/** Mappings that cannot work, and programs of the host that listen on published ports. */
export function ineffectiveCases(filter: Filter): void {
  const s = scene('mappings without effect, programs on the host', filter);

  s.test(
    'hostIP of one family, container with only the other: a warning; an error if no mapping is left',
    () => {
      const v4 = { ...s.c1, prevResult: resultOf(s.c1.netns, ['10.88.0.11/16']) };
      const v6only = { ...tcp(9002), hostIP: HOST.ipv6 };
      const { log } = add(v4, [tcp(9001), v6only]);
      assert.match(
        log,
        /port mappings without effect: \[2001:db8::1\]:9002\/tcp to 80: the container has no IPv6 address/,
      );
      assert.match(s.ruleset(), /9001/);
      call('DEL', v4, []);
      assert.not.match(s.ruleset(), /CNI-DN/, 'DEL with an empty list removes them all the same');
      const before = s.ruleset();
      for (const mappings of [[v6only], [{ ...tcp(9002), hostIP: '::' }]]) {
        const error = bad('portmap', 'ADD', v4, config(v4, mappings));
        assert.is(error.code, 7);
        assert.match(
          error.msg,
          /no port mapping has an effect: .*9002\/tcp to 80: the container has no IPv6 address/,
        );
      }
      const none = { ...s.c1, prevResult: resultOf(s.c1.netns, []) };
      assert.match(bad('portmap', 'ADD', none, config(none, [tcp(9002)])).msg, /no IPv4 or IPv6 address/);
      assert.is(s.ruleset(), before);
    },
  );

  s.test('hostIP ::1: a warning', () => {
    assert.match(add(s.c1, [{ ...tcp(9002), hostIP: '::1' }]).log, /without effect: \[::1\]:9002\/tcp/);
  });

  s.test('a program that listens on a published port is named with its pid', async () => {
    for (const [protocol, host, mapping, hit] of [
      ['tcp', '0.0.0.0', tcp(9002), true],
      ['tcp', '127.0.0.1', tcp(9002), true],
      ['tcp', '::', tcp(9002), true],
      ['tcp', HOST.ipv4, { ...tcp(9002), hostIP: HOST.ipv4 }, true],
      ['tcp', HOST.ipv4, { ...tcp(9002), hostIP: HOST.other }, false],
      ['tcp', '0.0.0.0', udp(9002), false],
      ['udp', '0.0.0.0', udp(9002), true],
      ['tcp', '::1', tcp(9002), false],
    ] as const) {
      const child = spawn(process.execPath, ['-e', LISTENER, protocol, host], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      try {
        await new Promise((ready) => child.stdout.once('data', ready));
        const { log } = add(s.c1, [mapping]);
        const warning = new RegExp(`process \\S+ \\(pid ${child.pid}\\) listens on .*:9002/${protocol}`);
        const title = `${protocol} ${host} ${JSON.stringify(mapping)}: ${log}`;
        if (hit) assert.match(log, warning, title);
        else assert.not.match(log, /listens on/, title);
      } finally {
        child.kill();
        await new Promise((ended) => child.once('exit', ended));
      }
    }
  });

  s.test.run();
}

const LISTENER = `
const [protocol, host] = process.argv.slice(1);
const ready = () => console.log('ready');
if (protocol === 'tcp') require('node:net').createServer().listen(9002, host, ready);
else require('node:dgram').createSocket('udp4').bind(9002, host, ready);`;
