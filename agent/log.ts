import { fstatSync, writeSync } from 'node:fs';
import { waitUntil } from '../shared/kernel/deadline.ts';
import { isErrno } from '../shared/kernel/errno.ts';
import { isWritable } from '../shared/kernel/poll.ts';
import { sendDatagram } from '../shared/kernel/unix-socket.ts';
import type { Request } from './wire.ts';

export const LEVELS = ['error', 'warning', 'info', 'debug'] as const;
export type Level = (typeof LEVELS)[number];

/** What an event says, for programs: `event` is its kind. journald gets each as a field: `WEFT_EVENT=repair`. */
export type Fields = Readonly<Record<string, string | number>>;

/** Writes one line, if its level is wanted. */
export type Log = (level: Level, line: string, fields?: Fields) => void;

/** syslog(3) */
const PRIORITIES: Readonly<Record<Level, number>> = { error: 3, warning: 4, info: 6, debug: 7 };

/** PIPE_BUF is 4096 bytes: shorter lines cannot block. */
const LONGEST_LINE = 1_300;

/**
 * A log to journald where stderr leads to it and it can be reached, otherwise to stderr. Many lines at once wait for its reader; while it reads
 * nothing, they are lost.
 * @param lowest of the levels that are written
 */
export function logTo(lowest: Level): Log {
  const write = leadsToJournald() ? writeJournal : writeStderr;
  // A log that nothing reads must not stop the agent: it waits for it once.
  let isRead = true;
  return (level, line, fields = {}) => {
    if (LEVELS.indexOf(level) > LEVELS.indexOf(lowest)) return;
    isRead = waitUntil(isRead ? PATIENCE_MS : 0, () => write(level, oneLine(line), fields));
  };
}

/** `key=value key=value`, as fields are written in a line. */
export function keyValues(fields: Fields): string {
  return Object.entries(fields)
    .map(([key, value]) => `${key}=${value}`)
    .join(' ');
}

/** As systemd.exec(5) says: the variable alone may be inherited. */
function leadsToJournald(): boolean {
  const stderr = fstatSync(2, { bigint: true });
  return process.env['JOURNAL_STREAM'] === `${stderr.dev}:${stderr.ino}`;
}

type Write = (level: Level, line: string, fields: Fields) => boolean;

/** Whether there was space, or never will be: a log that is closed must not end a call. */
const writeStderr: Write = (_level, line) => {
  try {
    return isWritable(2) && writeSync(2, `${line}\n`) > 0;
  } catch {
    return true;
  }
};

/** systemd.io/JOURNAL_NATIVE_PROTOCOL: one `FIELD=value` a line. */
const writeJournal: Write = (level, line, fields) => {
  const own = Object.entries(fields).map(
    ([name, value]) => `WEFT_${name.toUpperCase()}=${oneLine(String(value))}\n`,
  );
  const head = `PRIORITY=${PRIORITIES[level]}\nSYSLOG_IDENTIFIER=weft\nMESSAGE=${line}\n`;
  try {
    sendDatagram(JOURNAL, `${head}${own.join('')}`);
    return true;
  } catch (thrown) {
    return isErrno(thrown, 'EAGAIN') ? false : writeStderr(level, line, fields);
  }
};

function oneLine(text: string): string {
  return text.replaceAll(/\s*\n\s*/g, ' ').slice(0, LONGEST_LINE);
}

/** For the reader of many lines at once. */
const PATIENCE_MS = 500;
const JOURNAL = '/run/systemd/journal/socket';

/**
 * The line for one call: verb, plugin, network, container, time and result. Values of CNI_ARGS and the configuration are not part of it,
 * because they may hold secrets of other plugins.
 */
export function callLine(
  { plugin, environment }: Request,
  call: { outcome: number | 'declined'; stdout: string; network: string | undefined; milliseconds: number },
): [Level, string, Fields] {
  const { outcome, network = '-' } = call;
  const verb = environment['CNI_COMMAND'] || 'version';
  const container = environment['CNI_CONTAINERID'] || '-';
  const milliseconds = call.milliseconds.toFixed(1);
  const result = outcome === 'declined' ? outcome : outcome === 0 ? 'ok' : 'error';
  const said = { ok: 'ok', declined: 'declined: needs a process of its own', error: errorText(call.stdout) };
  return [
    result === 'error' ? 'error' : 'info',
    `${verb} ${plugin} network=${network} container=${container} ${milliseconds}ms ${said[result]}`,
    { event: 'call', verb, plugin, network, container, result, ms: milliseconds },
  ];
}

function errorText(stdout: string): string {
  try {
    const { code, msg } = JSON.parse(stdout) as { code: number; msg: string };
    return `error ${code}: ${msg}`;
  } catch {
    return 'failed without an error document';
  }
}
