import * as z from 'zod/mini';

/**
 * What a runtime itself reads of a network list: CNI SPEC 1.1.0 "Configuration format". Everything else, and the plugins' own
 * keys, pass through unread as with libcni: each plugin validates its part.
 */
const flag = z.union([z.boolean(), z.string().check(z.regex(/^(true|false)$/i, 'must be true or false'))]);

const networkName = z
  .string()
  .check(
    z.regex(
      /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/,
      'must start with a letter or digit and hold only letters, digits, "_", "." and "-" (it becomes part of file names)',
    ),
  );

const pluginType = z
  .string()
  .check(z.regex(/^[^/]+$/, 'must be the name of a plugin executable, not empty and without "/"'));

export const pluginSchema = z.looseObject({
  type: pluginType,
  name: z.optional(z.string()),
  cniVersion: z.optional(z.string()),
  capabilities: z.optional(z.record(z.string(), z.boolean())),
});

export const listSchema = z.looseObject({
  name: networkName,
  cniVersion: z.optional(z.string()),
  cniVersions: z.optional(z.array(z.string())),
  disableCheck: z.optional(flag),
  disableGC: z.optional(flag),
  loadOnlyInlinedPlugins: z.optional(flag),
  plugins: z.optional(z.array(pluginSchema).check(z.minLength(1, 'must name at least one plugin'))),
});

/** A lone plugin configuration (`.conf`): a list of one, whose name and version stand beside the plugin's own keys. */
export const singleSchema = z.extend(pluginSchema, { name: networkName });

/** The keys of {@link listSchema} that libcni knows in this spelling only, unlike keys inside a plugin's configuration. */
export const EXACT_KEYS = Object.keys(listSchema.shape);

export type PluginEntry = z.infer<typeof pluginSchema>;
