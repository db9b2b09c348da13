import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

type SyncCall = (...parameters: unknown[]) => unknown;

/** Lets `before` see every synchronous fs call that any module makes during `work`, then puts everything back. */
export function watchingFs<T>(
  before: (name: string, parameters: readonly unknown[]) => void,
  work: () => T,
): T {
  const functions = fs as unknown as Record<string, SyncCall>;
  const originals = Object.entries(functions).filter(([name]) => /Sync$/.test(name));
  for (const [name, original] of originals) {
    functions[name] = (...parameters: unknown[]) => {
      before(name, parameters);
      return original(...parameters);
    };
  }
  syncBuiltinESMExports();
  try {
    return work();
  } finally {
    for (const [name, original] of originals) functions[name] = original;
    syncBuiltinESMExports();
  }
}
