import { existsSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { printedVersion, type RunPlugin } from './verify.ts';

/** What is known about a file under a plugin's name. */
export interface Identity {
  /** `undefined`: another vendor's. */
  readonly vendor: 'weft' | 'reference' | 'consul' | undefined;
  /** For a human: `CNI reference plugin v1.1.1`. */
  readonly text: string;
}

/**
 * Go writes the paths of its packages into an executable, and Weft has its directory in /run: they tell the vendor also of a file that
 * does not run here. The version is what it prints.
 */
const MARKS = [
  ['weft', '/run/weft/', 'Weft'],
  ['consul', 'github.com/hashicorp/consul-k8s/', 'consul-cni'],
  ['reference', 'github.com/containernetworking/plugins/', 'CNI reference plugin'],
] as const;

export function identify(path: string, run: RunPlugin): Identity {
  // A dangling link.
  if (!existsSync(path)) return { vendor: 'reference', text: 'a dangling symbolic link' };
  const content = readFileSync(path);
  const printed = printedVersion(path, run);
  const [first = ''] = printed.split('\n');
  const version = / (v?\d+\.\d+\.\d+)\b/.exec(first)?.[1] ?? 'of unknown version';
  for (const [vendor, mark, text] of MARKS)
    if (content.includes(mark)) return { vendor, text: `${text} ${version}` };
  // A script that calls one of them prints their line.
  const name = basename(path);
  if (printed.startsWith(`CNI ${name} plugin `)) {
    return {
      vendor: name.startsWith('consul') ? 'consul' : 'reference',
      text: `CNI ${name} plugin ${version}`,
    };
  }
  return { vendor: undefined, text: first === '' ? 'prints no version' : `prints "${first.slice(0, 80)}"` };
}
