import { renderResult, type CniResult } from '../shared/cni/results.ts';
import type { ListedPlugin, NetworkList } from './network-list.ts';

/**
 * What one plugin reads on stdin: its own configuration with `name`, `cniVersion`, `prevResult` and, for the capabilities that it
 * declares, `runtimeConfig` put in. Compact, keys sorted, as libcni writes it.
 */
export function pluginInput(
  list: NetworkList,
  plugin: ListedPlugin,
  injected: {
    prevResult?: CniResult | undefined;
    capabilityArgs?: Readonly<Record<string, unknown>>;
    keys?: Readonly<Record<string, unknown>>;
  },
): string {
  const { prevResult, capabilityArgs = {}, keys = {} } = injected;
  const granted = Object.entries(capabilityArgs).filter(([name]) => plugin.capabilities[name] === true);
  return JSON.stringify(
    sortKeys({
      ...plugin.raw,
      name: list.name,
      cniVersion: list.cniVersion,
      ...(prevResult === undefined ? {} : { prevResult: renderResult(list.cniVersion, prevResult) }),
      ...(granted.length === 0 ? {} : { runtimeConfig: Object.fromEntries(granted) }),
      ...keys,
    }),
  );
}

/** The same value with the keys of every plain object in order of their characters. */
export function sortKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sortKeys);
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype)
    return value;
  const entries = Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1));
  return Object.fromEntries(entries.map(([key, inner]) => [key, sortKeys(inner)]));
}
