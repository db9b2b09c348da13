import { CniError } from './errors.ts';

/**
 * A plugin's settings, or why they are not to be used. DEL and GC must clean up whatever the configuration says by now:
 * runtimes stop at the first plugin whose DEL fails, and the plugins before it in the list are never asked.
 */
export type Settings<Value> = { readonly valid: Value } | { readonly problem: CniError };

/** Reads settings now, and lets ADD and CHECK hear about their problems when they ask for them. */
export function readSettings<Value>(read: () => Value): Settings<Value> {
  try {
    return { valid: read() };
  } catch (thrown) {
    if (thrown instanceof CniError) return { problem: thrown };
    throw thrown;
  }
}

/** @throws CniError what was wrong with them */
export function needSettings<Value>(settings: Settings<Value>): Value {
  if ('valid' in settings) return settings.valid;
  throw settings.problem;
}

/** For DEL and GC. */
export function settingsIfValid<Value>(settings: Settings<Value>): Value | undefined {
  return 'valid' in settings ? settings.valid : undefined;
}
