/** Bytes without which a rule of the kernel cannot be what is looked for, and the messages of a listing that hold them. */
import { addressBytes, networkOf, parseCidr } from '../../net/address.ts';
import type { Rule } from '../ruleset.ts';

/** A rule with an address, a comment or a jump carries its bytes. Asked for many rules in turn. */
export function needlesOf(rule: Rule): readonly Buffer[] {
  const known = needles.get(rule);
  if (known !== undefined) return known;
  const found = [
    ...[rule.source, rule.destination].flatMap((tested) =>
      tested === undefined ? [] : networkBytes(tested.value),
    ),
    ...(rule.matches ?? []).flatMap((match) =>
      match.kind === 'comment' ? [Buffer.from(match.comment)] : [],
    ),
    ...(rule.target.kind === 'jump' ? [chainNeedle(rule.target.chain)] : []),
  ].filter(({ length }) => length > 0);
  needles.set(rule, found);
  return found;
}

/** The needle that is found least often by chance; undefined for a rule that holds nothing of its own. */
export function bestNeedle(rule: Rule): Buffer | undefined {
  return needlesOf(rule).reduce<Buffer | undefined>(
    (best, needle) => (best === undefined || needle.length > best.length ? needle : best),
    undefined,
  );
}

/** The name in a verdict, with the NUL that the kernel puts behind every string: `CNI-1` does not find `CNI-10`. */
export function chainNeedle(chain: string): Buffer {
  return Buffer.from(`${chain}\0`);
}

/** Where the messages begin that hold a needle, each once. @param datagram whole messages, one behind the other */
export function* messagesWith(datagram: Buffer, needle: Buffer): Generator<number> {
  let message = 0;
  let next = 0;
  for (let found = datagram.indexOf(needle); found >= 0; found = datagram.indexOf(needle, next)) {
    while (next <= found) {
      message = next;
      next += (datagram.readUInt32LE(message) + 3) & ~3;
    }
    yield message;
  }
}

/** Where each message begins. */
export function* messagesOf(datagram: Buffer): Generator<number> {
  for (let at = 0; at < datagram.length; at += (datagram.readUInt32LE(at) + 3) & ~3) yield at;
}

const needles = new WeakMap<Rule, readonly Buffer[]>();

/** The whole bytes of the prefix: at least these are compared in the kernel. */
function networkBytes(text: string): Buffer[] {
  const cidr = parseCidr(text);
  if (cidr === undefined) return [];
  return [Buffer.from(addressBytes(networkOf(cidr).address).subarray(0, Math.floor(cidr.prefix / 8)))];
}
