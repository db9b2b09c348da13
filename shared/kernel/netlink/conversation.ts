import { Flags, FlagsGet, MessageType } from 'netlink/dist/constants.js';
import { CniCode, CniError } from '../../cni/errors.ts';
import type { KernelError } from '../errno.ts';
import { decodeDone, decodeError, type NetlinkMessage, type NetlinkRequest } from './message.ts';
import type { ReceivedMessage } from './message.ts';

/** What a conversation needs of a socket; NetlinkSocket has it, and tests bring recorded messages. */
export interface Transport {
  send(requests: readonly NetlinkRequest[]): number;
  receive(first: number, count: number): readonly ReceivedMessage[];
}

/** What became of one request of a batch. */
export interface NetlinkOutcome {
  readonly messages: readonly NetlinkMessage[];
  readonly error: KernelError | undefined;
}

/**
 * Sends requests in one write and waits until each has its verdict. rtnetlink carries out each request that it can, also
 * behind one that failed; nfnetlink batches are transactions of their own. A refused `silent` request (a part of
 * such a transaction) refuses all that have no verdict yet: of those nothing need be heard.
 * @returns one outcome per request, in order
 */
export function exchange(transport: Transport, requests: readonly NetlinkRequest[]): NetlinkOutcome[] {
  const answers = requests.map(({ silent, answered }) => new Answer(silent !== true, answered === true));
  const first = transport.send(requests);
  while (answers.some(({ pending }) => pending)) {
    for (const message of transport.receive(first, requests.length)) {
      const index = message.sequence - first;
      const request = requests[index];
      const answer = answers[index];
      if (request === undefined || answer === undefined) continue;
      answer.take(request.what, message);
      if (request.silent === true && answer.error !== undefined) refuseRest(answers, answer.error);
    }
  }
  return answers.map(({ messages, error }) => ({ messages, error }));
}

/**
 * All messages of a dump. The kernel reports with NLM_F_DUMP_INTR when the list changed under way, so that entries may be
 * missing or twice; then it is asked again, up to {@link DUMP_ATTEMPTS} times.
 * @throws KernelError when the kernel refuses or breaks off; CniError 11 when the list never kept still
 */
export function dump(transport: Transport, request: NetlinkRequest): NetlinkMessage[] {
  for (let attempt = 1; attempt <= DUMP_ATTEMPTS; attempt++) {
    const messages = dumpOnce(transport, request);
    if (messages !== 'interrupted') return messages;
  }
  throw neverStill(request.what);
}

export function neverStill(what: string): CniError {
  return new CniError(
    CniCode.TryAgainLater,
    `${what}: the list changed during each of ${DUMP_ATTEMPTS} attempts to read it`,
  );
}

/**
 * A thousand links are listed in some milliseconds, and a change takes about as long (see docs/internals/kernel.md): under a storm of
 * changes on a busy machine many attempts in a row meet one, fifty hardly do.
 */
export const DUMP_ATTEMPTS = 50;

class Answer {
  readonly messages: NetlinkMessage[] = [];
  error: KernelError | undefined;
  pending: boolean;
  readonly #endsWithMessage: boolean;

  constructor(pending: boolean, endsWithMessage: boolean) {
    this.pending = pending;
    this.#endsWithMessage = endsWithMessage;
  }

  take(what: string, message: ReceivedMessage): void {
    if (message.type === MessageType.ERROR) {
      this.error = decodeError(what, message);
      this.pending = false;
    } else if (message.type !== MessageType.NOOP) {
      this.messages.push(kept(message));
      if (this.#endsWithMessage) this.pending = false;
    }
  }
}

function refuseRest(answers: readonly Answer[], error: KernelError): void {
  for (const answer of answers) {
    if (answer.pending) answer.error = error;
    answer.pending = false;
  }
}

function dumpOnce(transport: Transport, request: NetlinkRequest): NetlinkMessage[] | 'interrupted' {
  const messages: NetlinkMessage[] = [];
  let interrupted = false;
  const first = transport.send([{ ...request, flags: request.flags | FlagsGet.DUMP, silent: true }]);
  for (;;) {
    for (const message of transport.receive(first, 1)) {
      interrupted ||= (message.flags & Flags.DUMP_INTR) !== 0;
      if (message.type === MessageType.DONE || message.type === MessageType.ERROR) {
        const error = (message.type === MessageType.DONE ? decodeDone : decodeError)(request.what, message);
        if (error !== undefined) throw error;
        return interrupted ? 'interrupted' : messages;
      }
      messages.push(kept(message));
    }
  }
}

/** The receive buffer is used again: what is kept is copied. */
function kept({ type, flags, body }: ReceivedMessage): NetlinkMessage {
  return { type, flags, body: Buffer.from(body) };
}
