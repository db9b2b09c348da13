import type { Duplex } from 'node:stream';

/** Joins two connections: what one says the other hears, an end in one direction is passed on, and both die together. */
export function splice(one: Duplex, other: Duplex): void {
  one.pipe(other);
  other.pipe(one);
  dieTogether(one, other);
}

/** An error or the final close of either closes the other. */
export function dieTogether(one: Duplex, other: Duplex): void {
  one.on('error', () => other.destroy());
  other.on('error', () => one.destroy());
  one.on('close', () => other.destroy());
  other.on('close', () => one.destroy());
}
