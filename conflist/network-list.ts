import { decodeConfig } from '../shared/config/decode.ts';
import { CniCode, CniError } from '../shared/cni/errors.ts';
import { parseJson } from '../shared/config/json.ts';
import {
  isAtLeast,
  isCniVersion,
  NEWEST_VERSION,
  CNI_VERSIONS,
  type CniVersion,
} from '../shared/cni/versions.ts';
import { EXACT_KEYS, listSchema, pluginSchema, singleSchema } from './schema.ts';

/** One plugin of a list: what the runtime reads, and the whole object as it was written. */
export interface ListedPlugin {
  readonly type: string;
  readonly capabilities: Readonly<Record<string, boolean>>;
  readonly raw: Readonly<Record<string, unknown>>;
}

export interface NetworkList {
  readonly name: string;
  readonly cniVersion: CniVersion;
  readonly disableCheck: boolean;
  readonly disableGC: boolean;
  /** Plugins may also lie in a folder beside the list's file (CNI SPEC "loadOnlyInlinedPlugins"). */
  readonly onlyInlined: boolean;
  readonly plugins: readonly ListedPlugin[];
  /** The list as it came, byte for byte: libcni's result cache keeps it. */
  readonly text: string;
}

/**
 * A network list (`.conflist`), or a lone plugin configuration (`.conf`), which counts as a list of one.
 * Throws CniError 6 for broken JSON, 1 for an unknown version, 7 naming every other problem.
 * @param what the text's origin, for messages: a path
 */
export function parseNetworkList(text: string, what: string): NetworkList {
  const document = objectOf(parseJson(text, what), what);
  return isList(document) ? fromList(document, text, what) : fromSingle(document, what);
}

/** A plugin configuration from a file beside the list. */
export function parsePlugin(text: string, what: string): ListedPlugin {
  return listedPlugin(objectOf(parseJson(text, what), what), what);
}

function isList(document: Readonly<Record<string, unknown>>): boolean {
  return Object.hasOwn(document, 'plugins') || !Object.hasOwn(document, 'type');
}

function fromList(document: Readonly<Record<string, unknown>>, text: string, what: string): NetworkList {
  refuseOtherSpellings(document, what);
  const decoded = decodeConfig(listSchema, document, what);
  const entries = (document['plugins'] ?? []) as Record<string, unknown>[];
  const onlyInlined = isTrue(decoded.loadOnlyInlinedPlugins);
  if (onlyInlined && entries.length === 0) {
    throw invalid(what, '"loadOnlyInlinedPlugins" is true, and there is no "plugins" to load from');
  }
  return {
    name: decoded.name,
    cniVersion: chooseVersion(decoded.cniVersion ?? '', decoded.cniVersions ?? [], what),
    disableCheck: isTrue(decoded.disableCheck),
    disableGC: isTrue(decoded.disableGC),
    onlyInlined,
    plugins: entries.map((entry, index) => listedPlugin(entry, `${what}, plugins[${index}]`)),
    text,
  };
}

function fromSingle(document: Readonly<Record<string, unknown>>, what: string): NetworkList {
  const decoded = decodeConfig(singleSchema, document, what);
  const version = decoded.cniVersion ?? '';
  return {
    name: decoded.name,
    cniVersion: chooseVersion(version, [], what),
    disableCheck: false,
    disableGC: false,
    onlyInlined: true,
    plugins: [listedPlugin(document, what)],
    // libcni caches the list that it made of the lone configuration, not the file.
    text: JSON.stringify({ cniVersion: version, name: decoded.name, plugins: [document] }),
  };
}

function listedPlugin(raw: Readonly<Record<string, unknown>>, what: string): ListedPlugin {
  const { type, capabilities } = decodeConfig(pluginSchema, raw, what);
  return { type, capabilities: capabilities ?? {}, raw };
}

/** libcni looks these up by their exact spelling and overlooks any other; a typo must not pass for "absent". */
function refuseOtherSpellings(document: Readonly<Record<string, unknown>>, what: string): void {
  const exact = new Map(EXACT_KEYS.map((key) => [key.toLowerCase(), key]));
  const wrong = Object.keys(document).filter((key) => (exact.get(key.toLowerCase()) ?? key) !== key);
  if (wrong.length === 0) return;
  const hints = wrong.map((key) => `"${key}" must be spelled "${exact.get(key.toLowerCase())}"`);
  throw invalid(what, hints.join('; '));
}

/** The newest version that the list offers and this runtime speaks; none at all means 0.1.0, as in the specification. */
function chooseVersion(single: string, several: readonly string[], what: string): CniVersion {
  const offered = several.length === 0 ? [single] : [...several, single].filter((text) => text !== '');
  const usable =
    several.length === 0 ? offered : offered.filter((version) => isAtLeast(NEWEST_VERSION, version));
  const newest = usable.reduce(
    (best, version) => (best !== '' && isAtLeast(best, version) ? best : version),
    '',
  );
  const version = newest === '' && usable.length > 0 ? '0.1.0' : newest;
  if (isCniVersion(version)) return version;
  throw new CniError(
    CniCode.IncompatibleVersion,
    `${what}: cniVersion ${offered.map((text) => JSON.stringify(text)).join(', ')} is none that this runtime speaks`,
    { details: `it speaks ${CNI_VERSIONS.join(', ')}` },
  );
}

function isTrue(value: boolean | string | undefined): boolean {
  return value === true || (typeof value === 'string' && value.toLowerCase() === 'true');
}

function objectOf(value: unknown, what: string): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>;
  throw invalid(
    what,
    `a network configuration must be a JSON object, got ${Array.isArray(value) ? 'an array' : String(value)}`,
  );
}

function invalid(what: string, rule: string): CniError {
  return new CniError(CniCode.InvalidNetworkConfig, `invalid ${what}: ${rule}`);
}
