import { readFileSync, readdirSync, realpathSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { parseNetworkList } from '../../conflist/network-list.ts';
import { SOCKET_PATH } from '../../agent/server.ts';
import { withNodeDefaults } from '../../plugins/consul-tproxy/config.ts';
import { pluginNamed } from '../../plugins/index.ts';
import { toCniError } from '../../shared/cni/errors.ts';
import { NODE_CONFIG_FILE } from '../../shared/config/node-config.ts';
import type { Check, Finding } from './finding.ts';
import type { Host } from './examined-host.ts';
import { listFiles } from './networks.ts';
import { findPluginFiles } from './plugin-files.ts';

export const CONFIGURATION_CHECKS: readonly Check<Host>[] = [
  { name: 'network lists', group: 'plugins', run: networkLists },
  { name: NODE_CONFIG_FILE, group: 'plugins', run: nodeConfiguration },
  { name: 'node agent', group: 'plugins', run: nodeAgent },
];

/** Each list of Nomad's cni_config_dir, with the plugins' own validation. */
async function networkLists(host: Host): Promise<Finding[]> {
  const installed = new Set(findPluginFiles(host.options.cniPath).files.map(({ name }) => name));
  const names = new Map<string, string>();
  const found: Finding[] = [];
  for (const file of listFiles(host)) {
    try {
      const list = parseNetworkList(host.text(file) ?? '', file);
      const earlier = names.get(list.name);
      if (earlier === undefined) names.set(list.name, file);
      else found.push(duplicate(list.name, file, earlier));
      for (const { type, raw, capabilities } of list.plugins) {
        if (installed.size > 0 && !installed.has(type))
          found.push(notInstalled(type, file, host.options.cniPath));
        const problems = await problemsOf(type, raw);
        if (problems.length > 0)
          found.push(invalid(file, `plugin ${type} of network ${list.name}: ${problems.join('; ')}`));
        else if (type === 'portmap' && capabilities['portMappings'] !== true)
          found.push({
            id: 'conflist-ports',
            what: `portmap of network ${list.name} does not declare the capability portMappings`,
            where: file,
            remedy: `add "capabilities": { "portMappings": true } to the plugin in ${file}`,
          });
      }
    } catch (thrown) {
      const { message, details } = toCniError(thrown);
      found.push(invalid(file, details === undefined || details === '' ? message : `${message}; ${details}`));
    }
  }
  return found;
}

/** None for a plugin of another vendor. */
async function problemsOf(type: string, raw: Readonly<Record<string, unknown>>): Promise<readonly string[]> {
  const configured = (await pluginNamed(type)?.load())?.configure(raw);
  return configured !== undefined && 'problems' in configured ? configured.problems : [];
}

function invalid(file: string, what: string): Finding {
  return {
    id: 'conflist-invalid',
    what,
    where: file,
    remedy: `correct ${file}, then: systemctl reload nomad`,
  };
}

function duplicate(name: string, file: string, earlier: string): Finding {
  return {
    id: 'conflist-duplicate',
    what: `${file} and ${earlier} are both named ${name}`,
    where: file,
    remedy: `rename the network in one of them, or remove it: rm ${file}`,
  };
}

function notInstalled(type: string, file: string, cniPath: readonly string[]): Finding {
  return {
    id: 'conflist-plugin',
    what: `plugin ${type} is not in ${cniPath.join(':')}`,
    where: file,
    remedy:
      pluginNamed(type) === undefined
        ? `install ${type}, or remove it from ${file}`
        : `weft install --bin-dir ${cniPath[0] ?? ''}`,
  };
}

function nodeConfiguration(): Finding[] {
  try {
    withNodeDefaults({});
    return [];
  } catch (thrown) {
    const { message, details } = toCniError(thrown);
    return [
      {
        id: 'weft-json',
        what: details === undefined || details === '' ? message : `${message}; ${details}`,
        where: NODE_CONFIG_FILE,
        remedy: `correct ${NODE_CONFIG_FILE}, or remove it: rm ${NODE_CONFIG_FILE}`,
      },
    ];
  }
}

/** Only where launchers are installed. */
async function nodeAgent(host: Host): Promise<Finding[]> {
  const wanted = launcherRelease(host.options.cniPath);
  if (wanted === undefined) return [];
  const greeting = await firstLine(SOCKET_PATH);
  if (greeting === undefined)
    return [
      {
        id: 'agent-not-running',
        what: `no agent answers at ${SOCKET_PATH}`,
        where: SOCKET_PATH,
        remedy: 'systemctl enable --now weft-agent',
      },
    ];
  const release = /^weft-agent \d+ ([0-9a-f]+)$/.exec(greeting)?.[1];
  if (release === wanted) return [];
  return [
    {
      id: 'agent-release',
      what: `the agent is of release ${release ?? JSON.stringify(greeting.slice(0, 80))}, the launchers of ${wanted}`,
      where: SOCKET_PATH,
      remedy: 'systemctl restart weft-agent',
    },
  ];
}

/** The release in the code of the launcher that Nomad runs as `bridge`; beside it is the folder `.weft` (launcher/launcher.c). */
function launcherRelease(cniPath: readonly string[]): string | undefined {
  const file = findPluginFiles(cniPath).files.find(({ name, isFirst }) => name === 'bridge' && isFirst);
  if (file?.stats === undefined || file.stats.size > MOST_LAUNCHER_BYTES) return undefined;
  try {
    const launcher = realpathSync(file.path);
    const code = readFileSync(launcher);
    return readdirSync(`${dirname(launcher)}/.weft`).find((release) => code.includes(release));
  } catch {
    // No launcher.
    return undefined;
  }
}

/** A launcher is some 100 kB, the executable more than 100 MB. */
const MOST_LAUNCHER_BYTES = 4 * 2 ** 20;

/** What a server at a Unix socket says first; undefined when none answers within {@link GREETING_MS}. */
async function firstLine(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    let text = '';
    const end = (line: string | undefined): void => {
      socket.destroy();
      resolve(line);
    };
    socket.setTimeout(GREETING_MS, () => end(undefined));
    socket.on('error', () => end(undefined));
    socket.on('close', () => end(undefined));
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      if (text.includes('\n')) end(text.slice(0, text.indexOf('\n')));
    });
  });
}

/** The agent serves one call at a time. */
const GREETING_MS = 1_000;
