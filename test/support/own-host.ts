import { resolve } from 'node:path';

/** Arguments of unshare(1), to be followed by a program and its own: that runs on a host of its own, see own-host.sh. */
export const ON_OWN_HOST: readonly string[] = [
  '--net',
  '--mount',
  '--pid',
  '--fork',
  '--kill-child',
  '--mount-proc',
  '--propagation',
  'private',
  '--',
  'sh',
  resolve(import.meta.dirname, 'own-host.sh'),
];
