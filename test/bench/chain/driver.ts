/** Starts plugins through driver.c, as cheaply as Nomad does. */
import { execFileSync, spawn } from 'node:child_process';
import { openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Call } from './calls.ts';

export interface Driven {
  readonly stdout: string;
  /** Milliseconds from before the program's start to its end. */
  readonly milliseconds: number;
  /** Milliseconds of processor of the program and of all programs that it started. */
  readonly cpu: number;
}

/** Runs one program to its end. @throws Error with its answer when it fails */
export function drive({ file, env, input }: Pick<Call, 'file' | 'env' | 'input'>): Driven {
  pipes ??= start();
  const variables = Object.entries(env).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${value}`],
  );
  const strings = [file, ...variables].map((text) => `${text}\0`).join('');
  const body = Buffer.concat([u32(variables.length), Buffer.from(strings), Buffer.from(input)]);
  writeFully(pipes.requests, Buffer.concat([u32(body.length), body]));
  const header = readFully(pipes.answers, HEADER_BYTES);
  const stdout = readFully(pipes.answers, header.readUInt32LE(20)).toString();
  const stderr = readFully(pipes.answers, header.readUInt32LE(24)).toString();
  const status = header.readInt32LE(16);
  if (status !== 0) {
    throw new Error(`${file} ${env['CNI_COMMAND'] ?? ''}: status ${status}: ${stdout}${stderr}`);
  }
  const milliseconds = Number(header.readBigUInt64LE(0)) / 1e6;
  return { stdout, milliseconds, cpu: Number(header.readBigUInt64LE(8)) / 1e3 };
}

/** | ns u64 | us of processor u64 | status i32 | bytes of stdout u32 | bytes of stderr u32 | */
const HEADER_BYTES = 28;

let pipes: { readonly requests: number; readonly answers: number } | undefined;

/** Both ends wait for each other at the named pipes. */
function start(): NonNullable<typeof pipes> {
  const program = '/run/bench-driver';
  const source = join(import.meta.dirname, 'driver.c');
  execFileSync('cc', ['-std=c11', '-O2', '-Wall', '-Werror', '-o', program, source]);
  const [requests, answers] = ['/run/bench-requests', '/run/bench-answers'] as const;
  execFileSync('mkfifo', [requests, answers]);
  spawn(program, [requests, answers], { stdio: ['ignore', 'inherit', 'inherit'] }).unref();
  return { requests: openSync(requests, 'w'), answers: openSync(answers, 'r') };
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function writeFully(fd: number, bytes: Buffer): void {
  for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at);
}

function readFully(fd: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length;) {
    const size = readSync(fd, bytes, at, length - at, null);
    if (size === 0) throw new Error('the driver has ended');
    at += size;
  }
  return bytes;
}
