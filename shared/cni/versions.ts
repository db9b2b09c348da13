import { CniCode, CniError } from './errors.ts';
import { show } from '../config/show.ts';
import { CNI_VERSIONS, type CniVersion } from './types.ts';

/**
 * The suite's release. Nomad takes the first version-looking word that an executable prints and wants at least 1.4.2 of
 * consul-cni and 1.3.0 of bridge: a plain release number, never a pre-release. The same as package.json's.
 */
export const SUITE_VERSION = '2.0.0';

/** What VERSION answers as its own version: that of the newest specification the suite knows. */
export const NEWEST_VERSION: CniVersion = '1.1.0';

/** Versions whose results have the same shape; a prevResult may come in any version of its configuration's class. */
const CLASSES: readonly (readonly CniVersion[])[] = [
  ['0.1.0', '0.2.0'],
  ['0.3.0', '0.3.1', '0.4.0'],
  ['1.0.0', '1.1.0'],
];

export function versionClass(version: CniVersion): readonly CniVersion[] {
  return CLASSES.find((members) => members.includes(version)) ?? [version];
}

export function isCniVersion(text: string): text is CniVersion {
  return (CNI_VERSIONS as readonly string[]).includes(text);
}

/** Whether `version` is `minimum` or newer. Throws CniError 6 for a text that is no version. */
export function isAtLeast(version: string, minimum: string): boolean {
  const given = versionParts(version);
  const wanted = versionParts(minimum);
  for (const [position, part] of wanted.entries()) {
    const difference = (given[position] ?? 0) - part;
    if (difference !== 0) return difference > 0;
  }
  return true;
}

/** `1`, `1.0` and `1.0.0` are read alike, as the CNI library does. */
function versionParts(text: string): number[] {
  if (!/^\d+(\.\d+){0,2}$/.test(text)) {
    throw new CniError(
      CniCode.DecodingFailure,
      `"cniVersion" must be three numbers like "1.1.0", got ${show(text)}`,
    );
  }
  return text.split('.').map(Number);
}
