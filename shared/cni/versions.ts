import { CniCode, CniError } from './errors.ts';
import { show } from '../config/json.ts';

export const CNI_VERSIONS = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
export type CniVersion = (typeof CNI_VERSIONS)[number];

/**
 * The suite's release. Nomad takes the first version-looking word that an executable prints and requires at least 1.4.2 of
 * consul-cni and 1.3.0 of bridge: a plain release number, never a pre-release. The same as package.json's.
 */
export const SUITE_VERSION = '2.0.0';

/** The `cniVersion` of the answer to VERSION: the newest specification that the suite implements. */
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
  const required = versionParts(minimum);
  for (const [position, part] of required.entries()) {
    const difference = (given[position] ?? 0) - part;
    if (difference !== 0) return difference > 0;
  }
  return true;
}

/** `1`, `1.0` and `1.0.0` are the same version, as for the CNI library. */
function versionParts(text: string): number[] {
  if (!/^\d+(\.\d+){0,2}$/.test(text)) {
    throw new CniError(
      CniCode.DecodingFailure,
      `"cniVersion" must be three numbers like "1.1.0", got ${show(text)}`,
    );
  }
  return text.split('.').map(Number);
}
