import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, linkSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { PLUGIN_NAMES, executable } from '../../support/executables.ts';

const LOADER = '/lib64/ld-linux-x86-64.so.2';

/** Everything that an executable asks of a host besides the kernel: glibc with its loader, libstdc++, libgcc_s. */
export const RUNTIME_LIBRARIES = [
  'ld-linux-x86-64.so.2',
  'libc.so.6',
  'libdl.so.2',
  'libgcc_s.so.1',
  'libm.so.6',
  'libpthread.so.0',
  'libstdc++.so.6',
];

/** A root directory with nothing in it but those libraries, the plugins and empty folders: no shell, no /etc, no libatomic. */
export function makeMinimalHost(root: string): void {
  for (const folder of ['lib64', 'opt/cni/bin', 'proc', 'run/netns', 'var', 'tmp'])
    mkdirSync(join(root, folder), { recursive: true });
  for (const [name, file] of librariesOf(executable('bridge'))) copyFileSync(file, join(root, 'lib64', name));
  symlinkSync('lib64', join(root, 'lib')); // where the loaders of Debian look
  const bin = join(root, 'opt/cni/bin');
  copyFileSync(executable('bridge'), join(bin, 'bridge'));
  for (const name of PLUGIN_NAMES) {
    if (name !== 'bridge') linkSync(join(bin, 'bridge'), join(bin, name));
  }
}

/** What the loader would load for a program, as the loader itself says: name -> file. */
export function librariesOf(program: string): Map<string, string> {
  const files = execFileSync(LOADER, ['--list', program], { encoding: 'utf8' }).matchAll(/(\/\S+) \(0x/g);
  return new Map([...files].map(([, file = '']) => [basename(file), file]));
}

/** Every file of this host that the loader could take for `library`. */
export function copiesOf(library: string): string[] {
  const folders = [
    '/lib',
    '/lib64',
    '/lib/x86_64-linux-gnu',
    '/usr/lib',
    '/usr/lib64',
    '/usr/lib/x86_64-linux-gnu',
  ];
  return folders
    .filter((folder) => existsSync(folder))
    .flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
    .filter((file) => basename(file).startsWith(library));
}
