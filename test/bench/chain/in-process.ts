/** The same plugins without processes: called in the benchmark itself, which lives long and is warm. */
import { existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { runPlugin } from '../../../shared/cni/protocol.ts';
import type { Plugin } from '../../../shared/cni/plugin.ts';
import { plugin as bridge } from '../../../plugins/bridge/plugin.ts';
import { plugin as consulTproxy } from '../../../plugins/consul-tproxy/plugin.ts';
import { plugin as firewall } from '../../../plugins/firewall/plugin.ts';
import { plugin as loopback } from '../../../plugins/loopback/plugin.ts';
import { plugin as portmap } from '../../../plugins/portmap/plugin.ts';
import { environmentOf, stdinOf, type Allocation, type Verb } from './calls.ts';
import type { List, PluginSuite } from './suites.ts';

const PLUGINS: ReadonlyMap<string, Plugin<never>> = new Map([
  ['loopback', loopback as unknown as Plugin<never>],
  ['bridge', bridge as unknown as Plugin<never>],
  ['firewall', firewall as unknown as Plugin<never>],
  ['portmap', portmap as unknown as Plugin<never>],
  ['consul-cni', consulTproxy as unknown as Plugin<never>],
]);

/** bridge calls its host-local as a function where that is the very program that runs: here, the Node of the benchmark. */
const HERE: PluginSuite = { name: 'weft', binDir: '/run/bench-in-process' };

function makeHere(): void {
  mkdirSync(HERE.binDir, { recursive: true });
  const hostLocal = `${HERE.binDir}/host-local`;
  if (!existsSync(hostLocal)) symlinkSync(process.execPath, hostLocal);
}

/** @returns the last plugin's result after ADD; what was given, after the others */
export function chainInProcess(
  list: List,
  verb: Verb,
  allocation: Allocation,
  prevResult?: unknown,
): unknown {
  makeHere();
  let result = verb === 'ADD' ? undefined : prevResult;
  for (const listed of verb === 'DEL' ? list.plugins.toReversed() : list.plugins) {
    const plugin = PLUGINS.get(listed.type);
    if (plugin === undefined) throw new Error(`no plugin ${listed.type} in this process`);
    const environment = environmentOf(HERE, verb, allocation);
    const answer = callInProcess(plugin, environment, stdinOf(list, listed, allocation, result));
    if (verb === 'ADD') result = JSON.parse(answer);
  }
  return result;
}

function callInProcess(plugin: Plugin<never>, environment: Record<string, string>, stdin: string): string {
  let out = '';
  const code = runPlugin(plugin, {
    environment,
    readStdin: () => stdin,
    isOwnNamespace: () => false,
    configurationOfAdd: () => undefined,
    writeOut: (text: string) => void (out += text),
    writeErr: () => undefined,
  });
  if (code !== 0) throw new Error(`${plugin.name} ${environment['CNI_CONTAINERID'] ?? ''}: ${out}`);
  return out;
}
