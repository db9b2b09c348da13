import { brotliDecompressSync } from 'node:zlib';
import { readBinaryAsset } from '../shared/assets.ts';
import { readOptions } from '../shared/config/command-line.ts';
import { writeAll } from '../shared/kernel/stdio.ts';

const HELP = `usage: weft licenses

Prints the licenses of the third-party software in this executable: Node.js and the bundled npm packages.

Exit status: 0 printed; 1 run from source, where no notices exist; 2 wrong usage
`;

/** The asset's name in the executable; build.mjs writes the same text beside it, as dist/THIRD-PARTY-NOTICES.txt. */
const NOTICES = 'third-party-notices.txt.br';

/** `weft licenses`. @returns the exit code: 1 when run from source, where no notices exist */
export function licenses(argv: readonly string[]): number {
  const { values } = readOptions(argv, { help: { type: 'boolean', short: 'h', default: false } });
  if (values.help) {
    writeAll(1, HELP);
    return 0;
  }
  const notices = readBinaryAsset(NOTICES);
  if (notices === undefined) {
    writeAll(2, 'weft licenses: the notices are part of the built executable; run "npm run build" first\n');
    return 1;
  }
  writeAll(1, brotliDecompressSync(notices).toString('utf8'));
  return 0;
}
