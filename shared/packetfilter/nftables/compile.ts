import { CniCode, CniError } from '../../cni/errors.ts';
import { CallCache } from '../../kernel/call-scope.ts';
import { inScratchNamespace } from '../../kernel/namespace.ts';
import { findProgram, runProgram } from '../../process/run.ts';
import { NftConnection } from './connection.ts';
import type { Expression } from './expressions.ts';
import { Message } from './messages.ts';
import type { NftFamily } from './model.ts';
import { decodeExpression } from './decode-expressions.ts';
import { attributeOf, attributesOf } from './nlattr.ts';

/**
 * An operator's own words in nft's language as the kernel's expressions. nft(8) puts them into a namespace that exists for
 * nothing else, and the kernel is asked what it understood: nothing of the host is touched, and nonsense is refused before
 * anything is.
 * @param what for the error: `conditionsV4`
 * @throws CniError 7 when nft refuses, or when the words need a set of their own; 50 without nft
 */
export function compileRawArgs(
  family: NftFamily,
  words: readonly string[],
  what: string,
): readonly Expression[] {
  const key = JSON.stringify([family, ...words]);
  return compiled.get(key, () => compile(family, words, what));
}

/** A plan is asked for its rules more than once. */
const compiled = new CallCache<readonly Expression[]>();

function compile(family: NftFamily, words: readonly string[], what: string): Expression[] {
  const nft = findProgram('nft');
  if (nft === undefined) {
    throw new CniError(
      CniCode.PluginNotAvailable,
      `${what} is written in nft's language, and this host has no nft program to read it`,
      {
        details: 'install nftables',
      },
    );
  }
  const list = inScratchNamespace(() => {
    const script = [
      `add table ${family} x`,
      `add chain ${family} x x`,
      `add rule ${family} x x ${words.join(' ')}`,
      '',
    ].join('\n');
    const { exitCode, stderr } = runProgram(nft, ['-f', '-'], { input: script });
    if (exitCode !== 0) throw refused(what, words, stderr.trim());
    using connection = NftConnection.open();
    const [rule] = connection.dump('read the condition back', Message.getRule, family, [[1, 'x']]);
    return Buffer.from((rule && attributeOf(rule, RULE_EXPRESSIONS)) ?? Buffer.alloc(0));
  });
  return attributesOf(list).map(([type, element]) => {
    if (decodeExpression(element).kind === 'lookup')
      throw refused(what, words, 'it needs a set: write a range or a prefix instead of { … }');
    return [type, element];
  });
}

const RULE_EXPRESSIONS = 4;

function refused(what: string, words: readonly string[], why: string): CniError {
  return new CniError(
    CniCode.InvalidNetworkConfig,
    `"${what}" is not a condition of nftables: ${words.join(' ')}`,
    { details: why },
  );
}
