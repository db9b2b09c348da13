import type { ChildProcess } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { suite } from '../../../../support/suite.ts';
import { startPluginProcess, variables } from '../../../../support/plugin.ts';
import { run } from '../../../../support/variants.ts';
import {
  ask,
  bad,
  good,
  makeBridge,
  makeContainer,
  makeWorld,
  OUTSIDE,
  removeContainer,
  resultOf,
  serve,
  type Container,
} from '../../../../support/port-host.ts';
import { equipHost, firewallCmd, sources, startBus, startFirewalld, stop } from './host.ts';
import { accepts, config, elements, lease, owned } from '../scene.ts';

/** The executable and the distribution's firewalld, with real traffic. */
export function firewalldCases(): void {
  const test = suite('firewall on firewalld', { limit: 120 });
  const servers: ChildProcess[] = [];
  let bus: ChildProcess | undefined;
  let firewalld: ChildProcess | undefined;
  let c1: Container;
  let c2: Container;
  let far: Container;
  const QUICK = { patience: 700 };

  test.before(async () => {
    equipHost();
    makeWorld();
    run('ip', 'route', 'add', 'default', 'via', '192.0.2.2');
    makeBridge('br1', '10.99.0.1/16', 'fd00:99::1/64');
    c1 = makeContainer('c1', 11);
    c2 = makeContainer('c2', 12);
    far = makeContainer('far', 13, 'br1', 99);
    for (const [namespace, name] of [
      ['c1', 'one'],
      ['c2', 'two'],
      ['far', 'far'],
      ['outside', 'out'],
    ] as const) {
      servers.push(await serve(namespace, name, 80));
    }
    bus = await startBus();
    firewalld = await startFirewalld();
  });
  test.after(async () => {
    servers.forEach((server) => server.kill());
    await stop(firewalld);
    await stop(bus);
  });
  test.beforeEach(() => {
    rmSync('/var/lib/cni', { recursive: true, force: true });
    rmSync('/etc/weft', { recursive: true, force: true });
    for (const zone of ['trusted', 'internal']) {
      for (const source of sources(zone)) firewallCmd(`--zone=${zone}`, `--remove-source=${source}`);
    }
  });

  const NAMED = { backend: 'firewalld' };
  const call = (command: string, container: Container, more: object = NAMED): string =>
    good('firewall', command, container, config(container, more)).log;
  const hosts = ({ ipv4, ipv6 }: Container): string[] => [`${ipv4}/32`, `${ipv6}/128`];

  test('ADD lets out what firewalld rejects, once; DEL takes it back, twice', () => {
    assert.not.match(ask('c1', 'tcp', OUTSIDE.ipv4, 80, QUICK), /^out/);
    for (const command of ['STATUS', 'ADD', 'ADD', 'CHECK']) assert.is(call(command, c1), '');
    assert.equal(sources().sort(), hosts(c1).sort());
    assert.match(ask('c1', 'tcp', OUTSIDE.ipv4, 80), /^out/);
    assert.match(ask('c1', 'udp', OUTSIDE.ipv6, 80), /^out/);
    assert.not.match(ask('c2', 'tcp', OUTSIDE.ipv4, 80, QUICK), /^out/);
    for (const command of ['DEL', 'DEL']) assert.is(call(command, c1), '');
    assert.equal(sources(), []);
    assert.not.match(ask('c1', 'tcp', OUTSIDE.ipv4, 80, QUICK), /^out/);
  });

  test('a zone of the network’s choice', () => {
    call('ADD', c1, { ...NAMED, firewalldZone: 'internal' });
    assert.equal([sources('trusted'), sources('internal').sort()], [[], hosts(c1).sort()]);
    call('CHECK', c1, { ...NAMED, firewalldZone: 'internal' });
    call('DEL', c1);
    assert.is(sources('internal').length, 2, 'DEL of the default zone leaves another zone alone');
    call('DEL', c1, { ...NAMED, firewalldZone: 'internal' });
    assert.equal(sources('internal'), []);
  });

  test('a source that is in another zone is refused in words, and nothing is left behind', () => {
    firewallCmd('--zone=internal', `--add-source=${c1.ipv6}/128`);
    const error = bad('firewall', 'ADD', c1, config(c1, NAMED));
    assert.is(
      error.msg,
      `firewalld has ${c1.ipv6}/128 in zone internal already (ZONE_CONFLICT), so it cannot be added to zone trusted`,
    );
    assert.match(error.details ?? '', /firewall-cmd --zone=internal --remove-source=fd00:88::11\/128/);
    assert.equal(sources(), [], 'IPv4 is taken back');
    call('DEL', c1);
    assert.equal(sources('internal'), [`${c1.ipv6}/128`]);
  });

  test('a zone that does not exist', () => {
    const error = bad('firewall', 'ADD', c1, config(c1, { ...NAMED, firewalldZone: 'nowhere' }));
    assert.match(error.msg, /firewalld: .*INVALID_ZONE.*nowhere/);
    call('DEL', c1, { ...NAMED, firewalldZone: 'nowhere' });
    good(
      'firewall',
      'GC',
      c1,
      config(undefined, { ...NAMED, firewalldZone: 'nowhere', 'cni.dev/valid-attachments': [] }),
    );
  });

  test('CHECK believes the answer, and changes nothing', () => {
    call('ADD', c1);
    firewallCmd('--zone=trusted', `--remove-source=${c1.ipv4}/32`);
    const before = sources();
    assert.is(
      bad('firewall', 'CHECK', c1, config(c1, NAMED)).msg,
      `firewall rules are not complete: source ${c1.ipv4}/32 is missing from zone trusted of firewalld`,
    );
    assert.equal(sources(), before);
    firewallCmd('--reload');
    assert.match(
      bad('firewall', 'CHECK', c1, config(c1, NAMED)).msg,
      /missing from zone trusted/,
      'a reload forgets',
    );
  });

  test('CHECK with another zone configured since ADD: a warning that names the key', () => {
    call('ADD', c1);
    assert.match(call('CHECK', c1, { ...NAMED, firewalldZone: 'internal' }), /"firewalldZone" has changed/);
    assert.match(call('CHECK', c1, { ...NAMED, ingressPolicy: 'isolated' }), /"ingressPolicy" has changed/);
    firewallCmd('--zone=trusted', `--remove-source=${c1.ipv4}/32`);
    bad('firewall', 'CHECK', c1, config(c1, { ...NAMED, firewalldZone: 'internal' }));
  });

  test('chosen where neither the network nor the node sets a backend', () => {
    for (const backend of ['', 'auto']) {
      call('ADD', c1, { backend });
      assert.equal(sources().sort(), hosts(c1).sort());
      call('CHECK', c1, { backend });
      call('DEL', c1, { backend });
      assert.equal(sources(), []);
    }
    call('ADD', c1, { backend: 'iptables' });
    mkdirSync('/etc/weft');
    writeFileSync('/etc/weft/weft.json', '{"backend": "nftables"}');
    call('ADD', c2, { backend: '' });
    assert.equal(sources(), []);
    assert.equal(elements(), owned(c2));
    assert.is(accepts().length, 2);
    for (const container of [c1, c2]) call('DEL', container, { backend: '' });
    assert.equal([...accepts(), ...elements()], []);
  });

  test('moved to nftables: a warning that firewalld rejects, with commands that help; DEL removes the sources', () => {
    call('ADD', c1);
    const log = call('ADD', c2, { backend: 'nftables' });
    assert.match(log, /chain filter_FORWARD of table inet firewalld drops tcp packets from 10\.88\.0\.12 /);
    assert.not.match(ask('c2', 'tcp', OUTSIDE.ipv4, 80, QUICK), /^out/);
    const commands = log.match(/firewall-cmd --zone=trusted --add-source=[\d.a-f:/]+/g) ?? [];
    assert.is(commands.length, 2, log);
    for (const command of commands) firewallCmd(...command.split(' ').slice(1));
    assert.is(call('ADD', c2, { backend: 'nftables' }), '');
    assert.match(ask('c2', 'tcp', OUTSIDE.ipv4, 80), /^out/);
    call('CHECK', c1, { backend: 'nftables' });
    call('DEL', c1, { backend: 'nftables' });
    assert.equal(sources().sort(), ['10.88.0.0/16', 'fd00:88::/64'], 'the operator’s stay');
    call('DEL', c2, NAMED);
    assert.equal(elements(), []);
  });

  test('GC removes sources of containers that are not valid, and no others', () => {
    const gone = makeContainer('gone', 70);
    for (const container of [c1, c2, gone, far]) call('ADD', container);
    removeContainer(gone);
    firewallCmd('--zone=trusted', '--add-source=198.51.100.7/32');
    firewallCmd('--zone=trusted', '--add-source=10.77.0.0/16');
    lease('net1', c1.ipv4, 'c1\r\neth0');
    lease('net1', c2.ipv4, 'c2\r\neth0');
    lease('net1', c2.ipv6, 'c2\r\neth0');
    const valid = [{ containerID: 'c2', ifname: 'eth0' }];
    good('firewall', 'GC', c1, config(undefined, { ...NAMED, 'cni.dev/valid-attachments': valid }));
    assert.equal(sources().sort(), [...hosts(c2), '198.51.100.7/32', '10.77.0.0/16'].sort());
  });

  test('ingress policies hold on firewalld as well', () => {
    const policed = { ...NAMED, ingressPolicy: 'same-bridge' };
    for (const container of [c1, c2, far]) call('ADD', container);
    assert.match(ask('c1', 'tcp', far.ipv4, 80), /^far/);
    for (const container of [c1, c2, far]) call('ADD', container, policed);
    assert.match(ask('c1', 'tcp', c2.ipv4, 80), /^two/);
    assert.is(ask('c1', 'tcp', far.ipv4, 80, QUICK), 'nothing');
    assert.match(ask('far', 'tcp', OUTSIDE.ipv4, 80), /^out/);
    call('CHECK', c1, policed);
    run('nft', 'flush set inet weft_firewall policy_bridges');
    assert.match(
      bad('firewall', 'CHECK', c1, config(c1, policed)).msg,
      /br0 is missing from set policy_bridges/,
    );
    run('nft', 'delete table inet weft_firewall');
  });

  test('the policy of the node holds on firewalld as well: what its zone accepts is still rejected', () => {
    mkdirSync('/etc/weft', { recursive: true });
    const egress = { deny: [`${OUTSIDE.ipv4}/32`, `${OUTSIDE.ipv6}/128`] };
    call('ADD', c1);
    assert.match(ask('c1', 'tcp', OUTSIDE.ipv4, 80), /^out/);
    writeFileSync('/etc/weft/weft.json', JSON.stringify({ isolation: 'network', egress }));
    for (const container of [c1, c2, far]) call('ADD', container);
    for (const address of [OUTSIDE.ipv4, OUTSIDE.ipv6, far.ipv4])
      assert.is(ask('c1', 'tcp', address, 80, { patience: 2_500 }), 'ECONNREFUSED', address);
    assert.match(ask('c1', 'tcp', c2.ipv4, 80), /^two/);
    firewallCmd('--reload');
    assert.is(ask('c1', 'tcp', OUTSIDE.ipv4, 80, { patience: 2_500 }), 'ECONNREFUSED', 'after a reload');
    rmSync('/etc/weft/weft.json');
    for (const container of [c1, c2, far]) call('ADD', container);
    assert.match(ask('c1', 'tcp', OUTSIDE.ipv4, 80), /^out/);
  });

  test('ten at once', async () => {
    const starts = Array.from({ length: 10 }, (_, at) =>
      startPluginProcess('firewall', {
        command: 'ADD',
        env: variables({ id: `p${at}`, netns: c1.netns }),
        stdin: config(undefined, { ...NAMED, prevResult: resultOf(c1.netns, [`10.88.1.${at}/16`]) }),
      }),
    );
    const failed = (await Promise.all(starts)).filter(({ exitCode }) => exitCode !== 0);
    assert.equal(failed, []);
    assert.is(sources().length, 10);
  });

  test('without firewalld, without a bus: ADD says so, auto goes on to iptables, DEL is quiet', async () => {
    call('ADD', c1);
    await stop(firewalld);
    const expectNothing = (): void => {
      for (const command of ['ADD', 'CHECK', 'STATUS']) {
        const error = bad('firewall', command, c1, config(c1, NAMED));
        assert.is(error.code, 50);
        assert.match(error.msg, /firewalld does not run on this host/);
      }
      assert.is(call('DEL', c1), '');
      call('ADD', c1, { backend: '' });
      assert.is(accepts().length, 2);
      assert.is(call('DEL', c1, { backend: '' }), '');
      assert.equal(accepts(), []);
    };
    expectNothing();
    await stop(bus);
    expectNothing();
  });

  test.run();
}
