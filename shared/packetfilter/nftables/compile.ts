import { CniCode, CniError } from '../../cni/errors.ts';
import { CallCache } from '../../kernel/call-scope.ts';
import { inScratchNamespace } from '../../kernel/namespace.ts';
import { findProgram, runProgram } from '../../process/run-program.ts';
import { NftConnection } from './connection.ts';
import type { Expression } from './expressions.ts';
import { Message } from './messages.ts';
import type { NftFamily } from './model.ts';
import { decodeExpression } from './decode-expressions.ts';
import { attributeOf, attributesOf } from './nlattr.ts';

/**
 * An operator's statements in nft's language as expressions. nft(8) adds them to a rule in a scratch namespace, where the kernel lists the
 * expressions: the host is not changed, and invalid statements are refused before ADD changes anything.
 * @param what for the error: `conditionsV4`
 * @throws CniError 7 if nft refuses, or if the statements need an anonymous set; 50 without nft
 */
export function compileRawArgs(
  family: NftFamily,
  args: readonly string[],
  what: string,
): readonly Expression[] {
  const key = JSON.stringify([family, ...args]);
  return compiled.get(key, () => compile(family, args, what));
}

/** A plan computes its rules more than once. */
const compiled = new CallCache<readonly Expression[]>();

function compile(family: NftFamily, args: readonly string[], what: string): Expression[] {
  const nft = findProgram('nft');
  if (nft === undefined) {
    throw new CniError(
      CniCode.PluginNotAvailable,
      `"${what}" needs the program nft, which this host does not have`,
      {
        details: 'install nftables',
      },
    );
  }
  const list = inScratchNamespace(() => {
    const script = [
      `add table ${family} x`,
      `add chain ${family} x x`,
      `add rule ${family} x x ${args.join(' ')}`,
    ].join('; ');
    // As an argument: nft 0.9.8 (Debian 11) opens /dev/stdin for `-f -`, which fails because Node's pipes are sockets.
    const { exitCode, stderr } = runProgram(nft, [script]);
    if (exitCode !== 0) throw refused(what, args, stderr.trim());
    using connection = NftConnection.open();
    const [rule] = connection.dump('read the condition back', Message.getRule, family, [[1, 'x']]);
    return Buffer.from((rule && attributeOf(rule, RULE_EXPRESSIONS)) ?? Buffer.alloc(0));
  });
  return attributesOf(list).map(([type, element]) => {
    if (decodeExpression(element).kind === 'lookup')
      throw refused(what, args, 'it needs a set: write a range or a prefix instead of { … }');
    return [type, element];
  });
}

const RULE_EXPRESSIONS = 4;

function refused(what: string, args: readonly string[], why: string): CniError {
  return new CniError(
    CniCode.InvalidNetworkConfig,
    `"${what}" is no valid nftables condition: ${args.join(' ')}`,
    { details: why },
  );
}
