import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import { applyWherePossible, chooseDriver } from '../../../../shared/packetfilter/select.ts';
import {
  masqueradeChange,
  masqueradeGarbage,
  masqueradeRemoval,
  missingMasquerade,
} from '../../../../plugins/bridge/iptables/masquerade.ts';
import { masqueradeChain } from '../../../../shared/packetfilter/names.ts';
import { clear, rules, run, sh, useVariant, type Variant } from '../../../support/variants.ts';

/** Masquerading on a real kernel; the same for both variants. */
export function masqueradeCases(variant: Variant): void {
  const test = suite(`masquerade on iptables-${variant}`, { limit: 60 });
  const one = { network: 'net1', containerId: 'cont1' };
  const CHAIN = 'CNI-01d424cb2a9303e21c6e971c';
  const COMMENT = '-m comment --comment "name: \\"net1\\" id: \\"cont1\\""';
  const quiet = (): void => undefined;
  const remove = (keep: string[] = []): void =>
    applyWherePossible(chooseDriver(), masqueradeRemoval({ ...one, keep }), quiet);

  test.before(() => useVariant(variant));
  test.beforeEach(() => clear('nat'));

  const GOLDEN = [
    `:${CHAIN} -`,
    `-A POSTROUTING -s 10.88.0.2/32 ${COMMENT} -j ${CHAIN}`,
    `-A ${CHAIN} -d 10.88.0.0/16 ${COMMENT} -j ACCEPT`,
    `-A ${CHAIN} ! -d 224.0.0.0/4 ${COMMENT} -j MASQUERADE`,
  ];

  test('writes what the reference writes, once', () => {
    for (let round = 0; round < 2; round++) {
      chooseDriver().apply(masqueradeChange({ ...one, addresses: ['10.88.0.2/16'] }));
      assert.equal(rules('nat'), GOLDEN);
    }
    assert.equal(rules('nat', 'ipv6'), []);
  });

  test('is what the commands of the reference would have made', () => {
    const comment = ['-m', 'comment', '--comment', 'name: "net1" id: "cont1"'];
    const iptables = (...args: string[]): string => run('iptables', '-t', 'nat', ...args, ...comment);
    run('iptables', '-t', 'nat', '-N', CHAIN);
    iptables('-A', CHAIN, '-d', '10.88.0.2/16', '-j', 'ACCEPT');
    iptables('-A', CHAIN, '!', '-d', '224.0.0.0/4', '-j', 'MASQUERADE');
    iptables('-A', 'POSTROUTING', '-s', '10.88.0.2', '-j', CHAIN);
    assert.equal(rules('nat'), GOLDEN);
    assert.is(missingMasquerade({ ...one, addresses: ['10.88.0.2/16'] }, chooseDriver().read), undefined);
    remove();
    assert.equal(rules('nat'), []);
  });

  test('goes by the commands of the reference and of Nomad', () => {
    chooseDriver().apply(masqueradeChange({ ...one, addresses: ['10.88.0.2/16'] }));
    const found =
      /-A POSTROUTING -s (\S+) -m comment --comment "name: \\"net1\\" id: \\"([a-z0-9]+)\\"" -j (CNI-[0-9a-f]+)/.exec(
        sh('iptables -t nat -S POSTROUTING'),
      );
    assert.equal(found?.slice(1), ['10.88.0.2/32', 'cont1', CHAIN]);
    const comment = ['-m', 'comment', '--comment', 'name: "net1" id: "cont1"'];
    run('iptables', '-t', 'nat', '-D', 'POSTROUTING', '-s', '10.88.0.2', ...comment, '-j', CHAIN);
    sh(`iptables -t nat -F ${CHAIN}`);
    sh(`iptables -t nat -X ${CHAIN}`);
    assert.equal(rules('nat'), []);
  });

  test('both families; removal needs neither addresses nor families', () => {
    const addresses = ['10.88.0.2/16', 'fd00:0:0::2/64'];
    chooseDriver().apply(masqueradeChange({ ...one, addresses }));
    assert.equal(rules('nat'), GOLDEN);
    assert.equal(rules('nat', 'ipv6'), [
      `:${CHAIN} -`,
      `-A POSTROUTING -s fd00::2/128 ${COMMENT} -j ${CHAIN}`,
      `-A ${CHAIN} -d fd00::/64 ${COMMENT} -j ACCEPT`,
      `-A ${CHAIN} ! -d ff00::/8 ${COMMENT} -j MASQUERADE`,
    ]);
    remove();
    remove();
    assert.equal([...rules('nat'), ...rules('nat', 'ipv6')], []);
  });

  test('several addresses of one subnet accept it once, before anything is masqueraded', () => {
    chooseDriver().apply(
      masqueradeChange({ ...one, addresses: ['10.88.0.2/16', '10.88.0.3/16', '10.99.0.2/24'] }),
    );
    assert.equal(rules('nat').slice(1), [
      `-A POSTROUTING -s 10.88.0.2/32 ${COMMENT} -j ${CHAIN}`,
      `-A POSTROUTING -s 10.88.0.3/32 ${COMMENT} -j ${CHAIN}`,
      `-A POSTROUTING -s 10.99.0.2/32 ${COMMENT} -j ${CHAIN}`,
      `-A ${CHAIN} -d 10.88.0.0/16 ${COMMENT} -j ACCEPT`,
      `-A ${CHAIN} -d 10.99.0.0/24 ${COMMENT} -j ACCEPT`,
      `-A ${CHAIN} ! -d 224.0.0.0/4 ${COMMENT} -j MASQUERADE`,
    ]);
  });

  test('a second ADD with another address replaces the first', () => {
    chooseDriver().apply(masqueradeChange({ ...one, addresses: ['10.88.0.2/16'] }));
    chooseDriver().apply(masqueradeChange({ ...one, addresses: ['10.88.0.7/16'] }));
    assert.equal(
      rules('nat').filter((line) => line.includes('POSTROUTING')),
      [`-A POSTROUTING -s 10.88.0.7/32 ${COMMENT} -j ${CHAIN}`],
    );
  });

  test('two interfaces of one container share the chain until the last one goes', () => {
    const driver = chooseDriver();
    driver.apply(masqueradeChange({ ...one, addresses: ['10.88.0.2/16'] }));
    driver.apply(
      masqueradeChange({ ...one, addresses: ['10.99.0.2/24'], keep: ['10.88.0.2/16', '127.0.0.1/8'] }),
    );
    const both = [
      `:${CHAIN} -`,
      `-A POSTROUTING -s 10.88.0.2/32 ${COMMENT} -j ${CHAIN}`,
      `-A POSTROUTING -s 10.99.0.2/32 ${COMMENT} -j ${CHAIN}`,
      `-A ${CHAIN} -d 10.88.0.0/16 ${COMMENT} -j ACCEPT`,
      `-A ${CHAIN} -d 10.99.0.0/24 ${COMMENT} -j ACCEPT`,
      `-A ${CHAIN} ! -d 224.0.0.0/4 ${COMMENT} -j MASQUERADE`,
    ];
    assert.equal(rules('nat'), both);
    driver.apply(masqueradeChange({ ...one, addresses: ['10.88.0.2/16'], keep: ['10.99.0.2'] }));
    assert.equal(rules('nat'), both, 'an ADD of the first one again changes nothing');
    for (const address of ['10.88.0.2/16', '10.99.0.2/24']) {
      assert.is(missingMasquerade({ ...one, addresses: [address] }, driver.read), undefined);
    }
    remove(['10.99.0.2/24']);
    assert.equal(
      rules('nat').filter((line) => line.includes('POSTROUTING')),
      [`-A POSTROUTING -s 10.99.0.2/32 ${COMMENT} -j ${CHAIN}`],
    );
    remove();
    assert.equal(rules('nat'), []);
  });

  test('names what is missing, and is content with rules in another place', () => {
    const driver = chooseDriver();
    const wanted = { ...one, addresses: ['10.88.0.2/16'] };
    const missing = (): string | undefined => missingMasquerade(wanted, driver.read);
    assert.is(missing(), `chain ${CHAIN} is missing from table nat (ipv4)`);
    driver.apply(masqueradeChange(wanted));
    sh('iptables -t nat -I POSTROUTING 1 -p esp -j ACCEPT');
    assert.is(missing(), undefined);
    sh(`iptables -t nat -D ${CHAIN} 2`);
    assert.is(
      missing(),
      `rule is missing from chain ${CHAIN} of table nat (ipv4): ! -d 224.0.0.0/4 ${COMMENT} -j MASQUERADE`,
    );
    driver.apply(masqueradeChange(wanted));
    sh('iptables -t nat -D POSTROUTING 2');
    assert.match(missing() ?? '', /^rule is missing from chain POSTROUTING .* -s 10\.88\.0\.2\/32 /);
  });

  test('garbage of one network goes, what is valid or another network’s stays', () => {
    const driver = chooseDriver();
    const others = [
      { network: 'net1', containerId: 'alive' },
      { network: 'net2', containerId: 'cont1' },
      { network: 'net11', containerId: 'cont1' },
    ];
    for (const [at, attachment] of [one, ...others].entries()) {
      driver.apply(
        masqueradeChange({ ...attachment, addresses: [`10.88.0.${at + 2}/16`, `fd00::${at + 2}/64`] }),
      );
    }
    sh('iptables -t nat -N CNI-FOREIGN');
    applyWherePossible(driver, masqueradeGarbage('net1', [{ containerID: 'alive' }]), quiet);
    const left = [...others.map(masqueradeChain), 'CNI-FOREIGN'];
    for (const family of ['ipv4', 'ipv6'] as const) {
      const chains = rules('nat', family).flatMap((line) => /^:(\S+)/.exec(line)?.[1] ?? []);
      assert.equal(new Set(chains), new Set(family === 'ipv4' ? left : left.slice(0, 3)));
      assert.not(rules('nat', family).some((line) => line.includes(CHAIN)));
    }
  });

  test('refuses an address without prefix', () => {
    assert.throws(
      () => masqueradeChange({ ...one, addresses: ['10.88.0.2'] }),
      /cannot masquerade "10\.88\.0\.2"/,
    );
  });

  test.run();
}
