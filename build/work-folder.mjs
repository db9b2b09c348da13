/** Directory for a build's intermediate files, about 400 MB; removed however the build ends. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

const NAME = /^\.work-(\d+)-/;

/**
 * A fresh folder in `parent`, removed when the user interrupts; at its regular end the caller removes it. What builds left that
 * were killed is removed first.
 * @param {string} parent @returns {string}
 */
export function workFolder(parent) {
  for (const name of readdirSync(parent)) {
    const pid = NAME.exec(name)?.[1];
    if (pid !== undefined && !isAlive(Number(pid))) rmSync(join(parent, name), { recursive: true });
  }
  const folder = mkdtempSync(join(parent, `.work-${process.pid}-`));
  for (const [signal, number] of Object.entries({ SIGINT: 2, SIGTERM: 15, SIGHUP: 1 })) {
    // While a child runs synchronously, the handler runs after it; Ctrl-C also reaches the child, which then ends.
    process.once(signal, () => {
      rmSync(folder, { recursive: true, force: true });
      process.exit(128 + number);
    });
  }
  return folder;
}

/** @param {number} pid */
function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (thrown) {
    return /** @type {NodeJS.ErrnoException} */ (thrown).code !== 'ESRCH';
  }
}
