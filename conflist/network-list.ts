import { readdirSync } from 'node:fs';
import { dirname, extname, join } from 'node:path';
import * as z from 'zod/mini';
import { decodeConfig } from '../shared/config/decode.ts';
import { parseJson } from '../shared/config/json.ts';
import { CniCode, CniError } from '../shared/cni/errors.ts';
import {
  CNI_VERSIONS,
  isAtLeast,
  isCniVersion,
  NEWEST_VERSION,
  type CniVersion,
} from '../shared/cni/versions.ts';
import { readRegularFile } from '../shared/kernel/files.ts';

/** One plugin of a list: what the runtime reads, and the whole object as written. */
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
  /** No plugins from the directory beside the list's file (CNI SPEC "loadOnlyInlinedPlugins"). */
  readonly onlyInlined: boolean;
  readonly plugins: readonly ListedPlugin[];
  /** The list byte for byte: libcni's result cache keeps it. */
  readonly text: string;
}

/**
 * A network list from its file, with the plugins of the directory `<the file's directory>/<network name>/*.conf` after its own, unless
 * `loadOnlyInlinedPlugins` is set. Throws CniError 5 when it cannot be read, else as {@link parseNetworkList}.
 */
export function loadNetworkList(file: string): NetworkList {
  const list = parseNetworkList(read(file), file);
  const beside = list.onlyInlined ? [] : pluginsBeside(join(dirname(file), list.name));
  const plugins = [...list.plugins, ...beside];
  if (plugins.length === 0) {
    throw new CniError(
      CniCode.InvalidNetworkConfig,
      `invalid network list ${file}: it has no "plugins", and there is no directory "${list.name}" of plugins beside it`,
    );
  }
  return { ...list, plugins };
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
  rejectOtherSpellings(document, what);
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

/** libcni reads these keys only in their exact spelling; a wrong one must not pass for an absent key. */
function rejectOtherSpellings(document: Readonly<Record<string, unknown>>, what: string): void {
  const exact = new Map(EXACT_KEYS.map((key) => [key.toLowerCase(), key]));
  const wrong = Object.keys(document).filter((key) => (exact.get(key.toLowerCase()) ?? key) !== key);
  if (wrong.length === 0) return;
  const hints = wrong.map((key) => `"${key}" must be spelled "${exact.get(key.toLowerCase())}"`);
  throw invalid(what, hints.join('; '));
}

/** The newest version that the list offers and this runtime supports; a list without one has 0.1.0, as in the specification. */
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
    `${what}: unsupported cniVersion ${offered.map((text) => JSON.stringify(text)).join(', ')}`,
    { details: `supported: ${CNI_VERSIONS.join(', ')}` },
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

function pluginsBeside(folder: string): ListedPlugin[] {
  return filesOf(folder)
    .filter((name) => extname(name) === '.conf')
    .sort()
    .map((name) => join(folder, name))
    .map((file) => parsePlugin(read(file), file));
}

function filesOf(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => !entry.isDirectory())
      .map(({ name }) => name);
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return [];
    throw new CniError(CniCode.IoFailure, `cannot read directory ${folder}: ${(thrown as Error).message}`, {
      cause: thrown,
    });
  }
}

function read(file: string): string {
  const text = readRegularFile(file, { limitBytes: LIMIT_BYTES });
  if (text !== undefined) return text;
  throw new CniError(CniCode.IoFailure, `network list ${file} does not exist`, {
    details: 'give the path of a .conflist or .conf file with --conflist',
  });
}

/** As much as a plugin reads of its configuration. */
const LIMIT_BYTES = 4 * 1024 * 1024;

/**
 * The keys of a network list that the runtime itself reads: CNI SPEC 1.1.0 "Configuration format". All other keys, and the
 * plugins' own, pass through unread as with libcni: each plugin validates its part.
 */
const flag = z.union([z.boolean(), z.string().check(z.regex(/^(true|false)$/i, 'must be true or false'))]);

const networkName = z
  .string()
  .check(
    z.regex(
      /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/,
      'must start with a letter or digit and contain only letters, digits, "_", "." and "-" (it becomes part of file names)',
    ),
  );

const pluginType = z
  .string()
  .check(z.regex(/^[^/]+$/, 'must be the name of a plugin executable, not empty and without "/"'));

const pluginSchema = z.looseObject({
  type: pluginType,
  name: z.optional(z.string()),
  cniVersion: z.optional(z.string()),
  capabilities: z.optional(z.record(z.string(), z.boolean())),
});

const listSchema = z.looseObject({
  name: networkName,
  cniVersion: z.optional(z.string()),
  cniVersions: z.optional(z.array(z.string())),
  disableCheck: z.optional(flag),
  disableGC: z.optional(flag),
  loadOnlyInlinedPlugins: z.optional(flag),
  plugins: z.optional(z.array(pluginSchema).check(z.minLength(1, 'must name at least one plugin'))),
});

/** A lone plugin configuration (`.conf`): a list of one, whose name and version stand beside the plugin's own keys. */
const singleSchema = z.extend(pluginSchema, { name: networkName });

/** The keys of {@link listSchema} that libcni knows in this spelling only, unlike keys inside a plugin's configuration. */
const EXACT_KEYS = Object.keys(listSchema.shape);
