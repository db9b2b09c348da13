/**
 * Stands in for build/entry.ts in an executable made for modules.test.ts: the same plugins, and at the end of each call a file in
 * $PROBE_FOLDER with the names of the built-in modules that this call had to load, and of the parts outside of the snapshot.
 */
import { writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { startupSnapshot } from 'node:v8';
import { main } from '../../../cli/main.ts';
import { prewarm } from '../../../build/prewarm.ts';

let inSnapshot = new Set<string>();
void prewarm().then(() => (inSnapshot = new Set(moduleList())));
startupSnapshot.setDeserializeMainFunction(() => void probe());

async function probe(): Promise<void> {
  const name = basename(process.argv[1] ?? '');
  const code = await main(name, []);
  const loaded = moduleList().filter((module) => !inSnapshot.has(module));
  writeFileSync(`${process.env['PROBE_FOLDER'] ?? '/run'}/${name}`, JSON.stringify(loaded));
  process.exit(code);
}

/** Node's own record: `NativeModule fs`, `Internal Binding ffi`. */
function moduleList(): string[] {
  return [...((process as unknown as { moduleLoadList: string[] }).moduleLoadList ?? [])];
}
