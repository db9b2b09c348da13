import { writeSync } from 'node:fs';
import { parseJson } from '../shared/config/json.ts';
import { isWritable } from '../shared/kernel/unix-socket.ts';
import type { Request } from './wire.ts';

export const LEVELS = ['error', 'warning', 'info', 'debug'] as const;
export type Level = (typeof LEVELS)[number];

/** Writes one line, if its level is wanted. */
export type Log = (level: Level, line: string) => void;

/** sd-daemon(3): journald takes the level from the line's beginning and removes it. */
const PRIORITIES: Readonly<Record<Level, number>> = { error: 3, warning: 4, info: 6, debug: 7 };

/** PIPE_BUF is 4096 bytes: shorter lines cannot block. */
const LONGEST_LINE = 1_300;

/** A log to stderr; lines that it does not take at once are lost. @param lowest of the levels that are written */
export function logTo(lowest: Level): Log {
  const prefix = process.env['JOURNAL_STREAM'] === undefined ? undefined : PRIORITIES;
  return (level, line) => {
    if (LEVELS.indexOf(level) > LEVELS.indexOf(lowest)) return;
    const text = line.replaceAll(/\s*\n\s*/g, ' ').slice(0, LONGEST_LINE);
    // A log that nothing reads must not stop the agent.
    if (!isWritable(2)) return;
    try {
      writeSync(2, `${prefix === undefined ? '' : `<${prefix[level]}>`}${text}\n`);
    } catch {
      // A log that is full or closed must not end a call.
    }
  };
}

/**
 * The line for one call: verb, plugin, network, container, time and result. Values of CNI_ARGS and the configuration are not part of it,
 * because they may hold secrets of other plugins.
 */
export function callLine(
  { plugin, environment, stdin }: Request,
  call: { outcome: number | 'declined'; stdout: string; milliseconds: number },
): [Level, string] {
  const { outcome, milliseconds } = call;
  const words = [
    environment['CNI_COMMAND'] || 'version',
    plugin,
    `network=${networkName(stdin)}`,
    `container=${environment['CNI_CONTAINERID'] || '-'}`,
    `${milliseconds.toFixed(1)}ms`,
  ];
  if (outcome === 'declined') return ['info', [...words, 'declined: needs a process of its own'].join(' ')];
  return outcome === 0
    ? ['info', [...words, 'ok'].join(' ')]
    : ['error', [...words, errorText(call.stdout)].join(' ')];
}

function networkName(stdin: string): string {
  try {
    // JSON.parse takes seconds for millions of nested lists, and other calls wait meanwhile.
    const { name } = parseJson(stdin, 'stdin') as { name?: unknown };
    return typeof name === 'string' && name !== '' ? name : '-';
  } catch {
    return '-';
  }
}

function errorText(stdout: string): string {
  try {
    const { code, msg } = JSON.parse(stdout) as { code: number; msg: string };
    return `error ${code}: ${msg}`;
  } catch {
    return 'failed without an error document';
  }
}
