/** Starts plugins through driver.c, as cheaply as Nomad does. */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, openSync, readSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import type { Call } from './calls.ts';

export interface Driven {
  readonly stdout: string;
  /** Milliseconds from before the program's start to its end. */
  readonly milliseconds: number;
  /** Milliseconds of processor of the program and of all programs that it started. */
  readonly cpu: number;
}

type Program = Pick<Call, 'file' | 'env' | 'input'>;

/** Runs one program to its end. @throws Error with its answer when it fails */
export function drive(program: Program): Driven {
  single ??= start('single');
  writeFully(single.requests, requestOf(program, 0));
  const header = readFully(single.answers, HEADER_BYTES);
  return outcomeOf(program, Buffer.concat([header, readFully(single.answers, bytesAfter(header))]));
}

/** The same beside others. Rejects with the program's answer when it fails. */
export function driveBeside(program: Program): Promise<Driven> {
  many ??= new Many();
  return many.run(program);
}

let single: Pipes | undefined;
let many: Many | undefined;

/** Both ends wait for each other at the named pipes. */
interface Pipes {
  readonly requests: number;
  readonly answers: number;
}

/** A driver whose answers come in any order. */
class Many {
  readonly #requests: number;
  readonly #answers: Socket;
  readonly #waiting = new Map<number, (answer: Buffer) => void>();
  #received = Buffer.alloc(0);
  #ids = 0;

  constructor() {
    const { requests, answers } = start('many');
    this.#requests = requests;
    this.#answers = new Socket({ fd: answers, readable: true, writable: false });
    this.#answers.on('data', (bytes: Buffer) => {
      this.#received = Buffer.concat([this.#received, bytes]);
      while (this.#takeAnswer());
      if (this.#waiting.size === 0) this.#answers.unref();
    });
  }

  async run(program: Program): Promise<Driven> {
    const id = (this.#ids += 1);
    const answer = await new Promise<Buffer>((resolve) => {
      this.#waiting.set(id, resolve);
      this.#answers.ref();
      writeFully(this.#requests, requestOf(program, id));
    });
    return outcomeOf(program, answer);
  }

  #takeAnswer(): boolean {
    if (this.#received.length < HEADER_BYTES) return false;
    const length = HEADER_BYTES + bytesAfter(this.#received);
    if (this.#received.length < length) return false;
    const answer = this.#received.subarray(0, length);
    this.#received = this.#received.subarray(length);
    const id = answer.readUInt32LE(0);
    this.#waiting.get(id)?.(answer);
    this.#waiting.delete(id);
    return true;
  }
}

function start(name: string): Pipes {
  const program = '/run/bench-driver';
  if (!existsSync(program)) {
    const source = join(import.meta.dirname, 'driver.c');
    execFileSync('cc', ['-std=c11', '-O2', '-Wall', '-Werror', '-pthread', '-o', program, source]);
  }
  const [requests, answers] = [`/run/bench-${name}-requests`, `/run/bench-${name}-answers`] as const;
  execFileSync('mkfifo', [requests, answers]);
  spawn(program, [requests, answers], { stdio: ['ignore', 'inherit', 'inherit'] }).unref();
  return { requests: openSync(requests, 'w'), answers: openSync(answers, 'r') };
}

function requestOf({ file, env, input }: Program, id: number): Buffer {
  const variables = Object.entries(env).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${value}`],
  );
  const strings = [file, ...variables].map((text) => `${text}\0`).join('');
  const body = Buffer.concat([u32(id), u32(variables.length), Buffer.from(strings), Buffer.from(input)]);
  return Buffer.concat([u32(body.length), body]);
}

/** | id u32 | ns u64 | us of processor u64 | status i32 | bytes of stdout u32 | bytes of stderr u32 | */
const HEADER_BYTES = 32;

function bytesAfter(header: Buffer): number {
  return header.readUInt32LE(24) + header.readUInt32LE(28);
}

function outcomeOf({ file, env }: Program, answer: Buffer): Driven {
  const status = answer.readInt32LE(20);
  if (status !== 0) {
    const text = answer.toString('utf8', HEADER_BYTES);
    throw new Error(`${file} ${env['CNI_COMMAND'] ?? ''}: status ${status}: ${text}`);
  }
  return {
    stdout: answer.toString('utf8', HEADER_BYTES, HEADER_BYTES + answer.readUInt32LE(24)),
    milliseconds: Number(answer.readBigUInt64LE(4)) / 1e6,
    cpu: Number(answer.readBigUInt64LE(12)) / 1e3,
  };
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
