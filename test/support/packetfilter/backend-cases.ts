/** The life of two containers in the back end of a plugin, on a packet filter in memory. */
import * as assert from 'uvu/assert';
import { NftConnection } from '../../../shared/packetfilter/nftables/connection.ts';
import { deleteRule as deletion } from '../../../shared/packetfilter/nftables/messages.ts';
import type { NftFamily } from '../../../shared/packetfilter/nftables/model.ts';
import type { Suite } from '../suite.ts';
import type { FakeHost } from './fake-host.ts';

export type ContainerName = 'one' | 'two';

/** A back end with the plans of two containers of one network. */
export interface BackendUnderTest {
  readonly name: string;
  add(container: ContainerName): void;
  /** As for CHECK. */
  missing(container: ContainerName): string | undefined;
  remove(container: ContainerName): void;
  /** As for GC; left out where GC reads lease files, which only root can write, or runs a program. */
  readonly collect?: ((valid: readonly ContainerName[]) => void) | undefined;
  /** Rules without which the container's network still works as it was set up, in the text of `nft list`. */
  readonly optional?: RegExp;
}

export function backendCases(test: Suite, host: FakeHost, backend: BackendUnderTest): void {
  const { name, collect } = backend;
  const generationAfter = (work: () => void): number => {
    work();
    return host.kernel.generation;
  };
  const contentsAfter = (...steps: (() => void)[]): string => {
    host.reset();
    for (const step of steps) step();
    return host.contents();
  };
  const add = (container: ContainerName) => (): void => backend.add(container);

  test(`${name}: ADD again changes nothing, and CHECK passes`, () => {
    host.reset();
    const before = generationAfter(add('one'));
    const contents = host.contents();
    assert.is(generationAfter(add('one')), before);
    assert.is(host.contents(), contents);
    assert.is(backend.missing('one'), undefined);
    assert.is(host.kernel.generation, before, 'CHECK changes nothing');
  });

  test(`${name}: CHECK fails without any one of the rules`, () => {
    const rules = rulesAfter(add('one'));
    assert.ok(rules.length > 0);
    for (const { at, text } of rules) {
      host.reset();
      backend.add('one');
      deleteRule(host, at);
      const isOptional = backend.optional?.test(text) === true;
      assert.is(backend.missing('one') === undefined, isOptional, `without: ${text}`);
    }
  });

  test(`${name}: DEL removes what belongs to the container and nothing else, as often as it is called`, () => {
    const alone = contentsAfter(add('two'));
    const both = contentsAfter(add('one'), add('two'));
    assert.is.not(both, alone);
    const after = generationAfter(() => backend.remove('one'));
    assert.is(host.contents(), alone);
    assert.is(
      generationAfter(() => backend.remove('one')),
      after,
    );
    assert.is(backend.missing('two'), undefined);
    assert.ok(backend.missing('one') !== undefined);
  });

  test(`${name}: DEL without tables creates none`, () => {
    assert.is(
      contentsAfter(() => backend.remove('one')),
      '',
    );
  });

  test(`${name}: ADD after DEL is a first ADD`, () => {
    const first = contentsAfter(add('one'));
    assert.is(
      contentsAfter(add('one'), () => backend.remove('one'), add('one')),
      first,
    );
  });

  if (collect !== undefined)
    test(`${name}: GC removes what belongs to no valid container`, () => {
      const alone = contentsAfter(add('two'));
      assert.is(
        contentsAfter(add('one'), add('two'), () => collect(['two'])),
        alone,
      );
      const both = contentsAfter(add('one'), add('two'));
      const before = host.kernel.generation;
      collect(['one', 'two']);
      assert.is(host.kernel.generation, before);
      assert.is(host.contents(), both);
    });

  function rulesAfter(step: () => void): { at: number; text: string }[] {
    host.reset();
    step();
    return host
      .list()
      .split('\n')
      .filter((line) => line.startsWith('\t\t') && !/^\t\t(type|flags|elements|comment) /.test(line))
      .map((text, at) => ({ at, text: text.trim() }));
  }
}

/** Deletes the first rule of the first table. */
export function deleteFirstRule(host: FakeHost): void {
  deleteRule(host, 0);
}

/** Deletes one rule, counted through all tables in the order of the listing. */
function deleteRule({ kernel }: FakeHost, at: number): void {
  const all = kernel.tables.flatMap((table) =>
    [...table.chains.values()].flatMap((chain) => chain.rules.map((rule) => ({ table, chain, rule }))),
  );
  const found = all[at];
  if (found === undefined) throw new Error(`there is no rule ${at}`);
  const { table, chain, rule } = found;
  const family = FAMILIES[table.family] ?? 'inet';
  using connection = NftConnection.open();
  connection.commit([deletion({ table: { family, name: table.name }, name: chain.name }, rule.handle)]);
}

const FAMILIES: Readonly<Record<number, NftFamily>> = { 1: 'inet', 2: 'ip', 7: 'bridge', 10: 'ip6' };
