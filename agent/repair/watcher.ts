import { createHash } from 'node:crypto';
import { toCniError } from '../../shared/cni/errors.ts';
import { readSysctl } from '../../shared/kernel/sysctl.ts';
import { findTools } from '../../shared/packetfilter/iptables/tools.ts';
import { legacyTablesInUse } from '../../shared/packetfilter/tables-in-use.ts';
import { runProgram } from '../../shared/process/run-program.ts';
import { keyValues, type Log } from '../log.ts';
import type { RepairReport } from './repairer.ts';

/** What the watcher uses of the host; tests replace it. */
export interface WatchedHost {
  /** Whether another program has deleted rules since the last call; cheap. */
  readonly hasDeletions: () => boolean;
  /** Equal as long as nothing changes that sends no notification: tables of iptables-legacy, kernel parameters. */
  readonly fingerprint: () => string;
  readonly repair: () => RepairReport;
  /** Milliseconds of a clock that never goes back. */
  readonly now: () => number;
}

/**
 * Decides when to compare the host with what its containers need: soon after another program has deleted rules, and again a little later,
 * because programs reload in several steps; every {@link POLL_MS} if the fingerprint has changed; every {@link FULL_LOOK_MS} in any case. While
 * another program deletes rules and adds them again all the time, looks because of deletions that find nothing missing take at most 4 % of the
 * time. If rules are missing again after each of {@link MOST_ROUNDS} repairs, repair pauses.
 */
export class Watcher {
  readonly #host: WatchedHost;
  readonly #log: Log;
  readonly #write: boolean;
  /** When to look because of deletions, but not before the other; and for another reason. */
  #urgentAt = Infinity;
  #urgentNotBefore = 0;
  #dueAt: number;
  /** Time that looks took which deletions had caused in vain, less what the time since allows. */
  #spentMs = 0;
  #spentAt = 0;
  #pollAt: number;
  #fullLookAt: number;
  #fingerprint: string | undefined;
  #pausedUntil = 0;
  /** When the last repairs were. */
  #repairs: number[] = [];
  /** In `log` mode, what was missing at the last look: reported once. */
  #reported = '';
  /** For the metrics. */
  readonly counts = { looks: 0, repairs: 0, pieces: 0, pauses: 0 };

  /** @param write false: only log what is missing */
  constructor(host: WatchedHost, log: Log, write: boolean) {
    this.#host = host;
    this.#log = log;
    this.#write = write;
    const now = host.now();
    this.#dueAt = now;
    this.#pollAt = now + POLL_MS;
    this.#fullLookAt = now + FULL_LOOK_MS;
  }

  /** Called between plugin calls. Nearly always takes microseconds. */
  step(): void {
    const now = this.#host.now();
    if (this.#host.hasDeletions()) this.#urgentAt = Math.min(this.#urgentAt, now + SETTLE_MS);
    if (now >= this.#pollAt) this.#poll(now);
    if (now >= this.#fullLookAt) this.#dueAt = Math.min(this.#dueAt, now);
    const isUrgent = now >= this.#urgentDueAt();
    if (now < this.#pausedUntil || (!isUrgent && now < this.#dueAt)) return;
    try {
      this.#look(now, isUrgent);
    } catch (thrown) {
      this.#log('error', `repair: failed: ${toCniError(thrown).message}`);
      this.#dueAt = this.#host.now() + POLL_MS;
    }
  }

  /** Milliseconds until {@link step} has something to do, unless rules are deleted before; 0 or less: now. */
  untilNextMs(): number {
    const look = Math.max(Math.min(this.#urgentDueAt(), this.#dueAt, this.#fullLookAt), this.#pausedUntil);
    return Math.min(look, this.#pollAt) - this.#host.now();
  }

  #urgentDueAt(): number {
    return Math.max(this.#urgentAt, this.#urgentNotBefore);
  }

  #poll(now: number): void {
    this.#pollAt = now + POLL_MS;
    const fingerprint = this.#host.fingerprint();
    if (fingerprint !== this.#fingerprint) this.#dueAt = Math.min(this.#dueAt, now);
    this.#fingerprint = fingerprint;
  }

  #look(now: number, isUrgent: boolean): void {
    this.#urgentAt = Infinity;
    this.#dueAt = Infinity;
    this.#fullLookAt = now + FULL_LOOK_MS;
    this.#fingerprint ??= this.#host.fingerprint();
    const { missing, left, problems, attachments, milliseconds } = this.#host.repair();
    this.counts.looks += 1;
    this.#fullLookAt = now + Math.max(FULL_LOOK_MS, FULL_LOOK_COST_FACTOR * milliseconds);
    for (const line of problems) this.#log('debug', `repair: ${line}`);
    if (isUrgent) this.#urgentNotBefore = this.#host.now() + PAUSE_MS;
    if (missing.length === 0) {
      this.#reported = '';
      if (isUrgent) this.#urgentNotBefore += Math.max(0, this.#spend(milliseconds));
      return;
    }
    if (!this.#write) {
      this.#dueAt = this.#host.now() + POLL_MS;
      this.#report(missing);
      return;
    }
    // It was that of the host before the repair: what deletes the same rules again would go unnoticed.
    this.#fingerprint = undefined;
    // Programs such as firewalld go on after their first transaction.
    this.#dueAt = this.#host.now() + FOLLOW_UP_MS;
    const restored = missing.length - left.length;
    this.counts.repairs += 1;
    this.counts.pieces += restored;
    const figures = { restored, missing: missing.length, attachments, ms: milliseconds.toFixed(0) };
    this.#log(
      'warning',
      `repair: ${keyValues(figures)}: ${missing.slice(0, SHOWN).join('; ')}${missing.length > SHOWN ? '; ...' : ''}`,
      { event: 'repair', ...figures },
    );
    for (const line of left) this.#log('error', `repair: cannot restore: ${line}`);
    if (left.length > 0) this.#dueAt = this.#host.now() + POLL_MS;
    this.#pauseAfterTooMany(missing);
  }

  /** @returns how long to wait until the share of the time that looks in vain may take allows another one */
  #spend(milliseconds: number): number {
    const now = this.#host.now();
    this.#spentMs = Math.max(0, this.#spentMs - (now - this.#spentAt) / COST_FACTOR) + milliseconds;
    this.#spentAt = now;
    return COST_FACTOR * (this.#spentMs - BURST_MS);
  }

  #report(missing: readonly string[]): void {
    const text = missing.join('\n');
    if (text !== this.#reported)
      for (const line of missing) this.#log('warning', `repair: ${line}`, { event: 'missing' });
    this.#reported = text;
  }

  #pauseAfterTooMany(missing: readonly string[]): void {
    const now = this.#host.now();
    this.#repairs = [...this.#repairs.filter((at) => at > now - ROUNDS_WITHIN_MS), now];
    if (this.#repairs.length < MOST_ROUNDS) return;
    const tables = new Set(
      missing.flatMap((line) => /table \S+ \(\w+\)|add \w+ \w+ \w+/.exec(line)?.[0] ?? []),
    );
    this.#log(
      'error',
      `repair: paused for ${PAUSED_MS / 60_000} minutes: another program has deleted rules again after each of ${MOST_ROUNDS} repairs, ` +
        `in ${[...tables].join(', ')}; find it with nft monitor`,
    );
    this.counts.pauses += 1;
    this.#repairs = [];
    this.#pausedUntil = now + PAUSED_MS;
    this.#dueAt = this.#pausedUntil;
  }
}

/** Kernel parameters, and the rules of iptables-legacy in use, whose changes send no notification. */
export function hostFingerprint(): string {
  const sysctls = ['net/ipv4/ip_forward', 'net/ipv6/conf/all/forwarding'].map((path) => {
    try {
      return readSysctl(path);
    } catch {
      return '';
    }
  });
  const hash = createHash('sha1');
  for (const family of ['ipv4', 'ipv6'] as const) {
    const tools = findTools(family, 'legacy');
    for (const table of ['filter', 'nat']) {
      if (tools === undefined || legacyTablesInUse(family)?.includes(table) !== true) continue;
      const { stdout } = runProgram(tools.save, ['-t', table], { timeoutMs: 5_000 });
      hash.update(stdout.replaceAll(/^#.*$|\[\d+:\d+\]/gm, ''));
    }
  }
  return [...sysctls, hash.digest('hex')].join(' ');
}

/** A program's transactions come in bursts. */
const SETTLE_MS = 100;
/** Between looks because of deletions. */
const PAUSE_MS = 1_000;
/** Those in vain take 4 % of the time at most, ... */
const COST_FACTOR = 25;
/** ... after this much that is free: a program may delete rules and add them again now and then. */
const BURST_MS = 3_000;
const FOLLOW_UP_MS = 2_000;
const POLL_MS = 30_000;
const FULL_LOOK_MS = 600_000;
/** Full looks without a reason take 0.0125 % of the time at most. */
const FULL_LOOK_COST_FACTOR = 8_000;
const MOST_ROUNDS = 5;
const ROUNDS_WITHIN_MS = 30_000;
const PAUSED_MS = 300_000;
const SHOWN = 5;
