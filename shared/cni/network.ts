import * as z from 'zod/mini';
import { decodeAs, decodeConfig } from '../config/decode.ts';
import { CniCode, CniError } from './errors.ts';
import { parseJson, show } from '../config/json.ts';
import { checkNetworkName } from './environment.ts';
import type { Plugin } from './plugin.ts';
import { parseResult, type CniResult } from './results.ts';
import { isAtLeast, isCniVersion, type CniVersion } from './versions.ts';

/** The part of the configuration on stdin that the protocol itself reads. */
export interface Network {
  readonly name: string;
  /** The whole document, as it came. */
  readonly raw: Readonly<Record<string, unknown>>;
}

const UNREADABLE = 'error unmarshall network config';

const Name = z.object({ name: z._default(z.string(), '') });

/** Throws CniError 6 for what is no JSON object or has a name that is no string, 7 for a name that is missing or not allowed. */
export function readNetwork(text: string): Network {
  const raw = parseJson(text, UNREADABLE) ?? {};
  const { name } = decodeAs(Name, raw, CniCode.DecodingFailure, UNREADABLE);
  checkNetworkName(name);
  return { name, raw: raw as Record<string, unknown> };
}

/** The oldest cniVersion of a configuration with which a verb may be called. */
const SINCE: Readonly<Record<string, CniVersion>> = { CHECK: '0.4.0', GC: '1.1.0', STATUS: '1.1.0' };

const Version = z.object({ cniVersion: z._default(z.string(), '') });

/**
 * The configuration's version; none means 0.1.0. Throws CniError 1 when the verb is newer than the version, the version
 * newer than the plugin, or the version none of the plugin's; 6 when it cannot be read.
 */
export function readVersion(
  command: string,
  { raw }: Network,
  { supportedVersions }: Pick<Plugin<unknown>, 'supportedVersions'>,
): CniVersion {
  const { cniVersion } = decodeAs(
    Version,
    raw,
    CniCode.DecodingFailure,
    'decoding version from network config',
  );
  const version = cniVersion === '' ? '0.1.0' : cniVersion;
  const since = SINCE[command];
  if (since !== undefined) checkVerb(command, since, version, supportedVersions);
  if (isCniVersion(version) && supportedVersions.includes(version)) return version;
  const supported = supportedVersions.map((one) => JSON.stringify(one)).join(' ');
  throw new CniError(CniCode.IncompatibleVersion, 'incompatible CNI versions', {
    details: `config is ${show(version)}, plugin supports [${supported}]`,
  });
}

function checkVerb(command: string, since: string, version: string, supported: readonly string[]): void {
  if (!isAtLeast(version, since)) {
    throw new CniError(CniCode.IncompatibleVersion, `config version does not allow ${command}`, {
      details: `${command} needs cniVersion ${since} or newer, the config has ${show(version)}`,
    });
  }
  if (!supported.some((one) => isAtLeast(one, version))) {
    throw new CniError(CniCode.IncompatibleVersion, `plugin version does not allow ${command}`, {
      details: `config is ${show(version)}, plugin supports up to ${JSON.stringify(supported.at(-1))}`,
    });
  }
}

const Previous = z.object({ prevResult: z.optional(z.unknown()) });

/** The result of the plugins before this one, in a version of the configuration's class. Throws CniError 6. */
export function readPrevResult({ raw }: Network, version: CniVersion): CniResult | undefined {
  const { prevResult } = decodeAs(Previous, raw, CniCode.DecodingFailure, UNREADABLE);
  return prevResult === undefined ? undefined : parseResult(version, prevResult, 'prevResult');
}

const Attachments = z.optional(
  z.array(
    z.object({ containerID: z.string().check(z.minLength(1)), ifname: z.string().check(z.minLength(1)) }),
  ),
);
const Lists = z.object({ 'cni.dev/valid-attachments': Attachments, 'cni.dev/attachments': Attachments });

/**
 * The attachments that GC must keep, under the specification's key or the one older runtimes send; undefined when there is
 * neither. An invalid entry makes the whole list invalid (CniError 7): to skip it would delete an attachment that is in use.
 */
export function readValidAttachments({
  raw,
}: Network): { containerID: string; ifname: string }[] | undefined {
  const lists = decodeConfig(Lists, raw, 'network config');
  return lists['cni.dev/valid-attachments'] ?? lists['cni.dev/attachments'];
}
