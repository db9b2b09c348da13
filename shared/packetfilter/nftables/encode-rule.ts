import type { NetlinkRequest } from '../../kernel/netlink/message.ts';
import { encodeStatements } from './encode.ts';
import { addRule } from './messages.ts';
import type { NftRule } from './model.ts';

/** A rule put at the end of its chain. */
export function ruleRequest({ chain, statements, comment }: NftRule): NetlinkRequest {
  return addRule(chain, { expressions: encodeStatements(chain.table.family, statements), comment }, 'last');
}
