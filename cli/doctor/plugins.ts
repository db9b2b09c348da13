import { chmodSync, statSync } from 'node:fs';
import type { Check, Finding } from './finding.ts';
import type { Host } from './examined-host.ts';
import {
  findPluginFiles,
  satisfies,
  versionsOf,
  VERSION_LIMIT_MS,
  type PluginFile,
  type PluginVersion,
} from './plugin-files.ts';

export const PLUGIN_CHECKS: readonly Check<Host>[] = [
  { name: 'files in cni_path', group: 'plugins', run: files },
  { name: 'versions of the plugins', group: 'plugins', run: versions },
];

/** In every list that Nomad generates. */
const REQUIRED = ['loopback', 'bridge', 'host-local', 'firewall', 'portmap'];
/** Also in that of a group with transparent_proxy. */
const SUITE = [...REQUIRED, 'consul-cni'];
/** nomad/job_endpoint_hooks.go; bridge: client/allocrunner/networking_cni.go, without which Nomad skips CHECK. */
const LEAST: Readonly<Record<string, string>> = {
  bridge: '1.3.0',
  firewall: '0.4.0',
  'host-local': '0.4.0',
  loopback: '0.4.0',
  portmap: '0.4.0',
  'consul-cni': '1.4.2',
};

function files({ options: { cniPath } }: Host): Finding[] {
  const { directories, files: present } = findPluginFiles(cniPath);
  if (directories.every(({ problem }) => problem !== undefined))
    return [
      {
        id: 'plugin-path',
        what: directories.map(({ path, problem }) => `${path}: ${problem ?? ''}`).join('; '),
        where: cniPath.join(':'),
        remedy: `weft install --bin-dir ${cniPath[0] ?? ''}`,
      },
    ];
  const first = directories.find(({ problem }) => problem === undefined)?.path ?? '';
  const missing = REQUIRED.filter((name) => !present.some((file) => file.name === name));
  const hidden = present.filter(({ isFirst, name }) => !isFirst && SUITE.includes(name));
  return [
    ...missing.map((name): Finding => ({
      id: 'plugin-missing',
      what: `${name} is not in ${cniPath.join(':')}`,
      where: `${first}/${name}`,
      remedy: `weft install --bin-dir ${first}`,
    })),
    ...present.filter(({ isFirst }) => isFirst).flatMap(notExecutable),
    ...writable(
      present,
      directories.filter(({ problem }) => problem === undefined),
    ),
    ...hidden.map((file): Finding => {
      const used = present.find(({ name }) => name === file.name);
      return {
        id: 'plugin-shadowed',
        what: `Nomad runs ${used?.path ?? ''}, not ${file.path}`,
        where: file.path,
        remedy: `mv ${file.path} ${file.path}.unused && chmod -x ${file.path}.unused`,
      };
    }),
  ];
}

function notExecutable({ name, path, isExecutable, stats }: PluginFile): Finding[] {
  if (!SUITE.includes(name)) return [];
  if (stats === undefined)
    return [
      {
        id: 'plugin-not-executable',
        what: `${path} is a symbolic link that leads nowhere`,
        where: path,
        remedy: `weft install --bin-dir ${path.slice(0, path.lastIndexOf('/'))}`,
      },
    ];
  if (isExecutable && (stats.mode & 0o111) !== 0) return [];
  const mode = stats.mode & 0o7777;
  return [
    {
      id: 'plugin-not-executable',
      what: `${path} has mode ${octal(mode)}`,
      where: path,
      remedy: `chmod a+x ${path}`,
      fix: {
        command: `chmod a+x ${path}`,
        undo: `chmod ${octal(mode)} ${path}`,
        apply: () => chmodSync(path, mode | 0o111),
      },
    },
  ];
}

function writable(present: readonly PluginFile[], directories: readonly { path: string }[]): Finding[] {
  const folders = directories.map(({ path }) => ({ path, stats: statSync(path) }));
  const executables = present.flatMap(({ path, stats }) => (stats === undefined ? [] : [{ path, stats }]));
  return [...folders, ...executables]
    .filter(({ stats }) => (stats.mode & 0o022) !== 0 || stats.uid !== 0)
    .map(({ path, stats: { mode, uid } }) => ({
      id: 'plugin-writable',
      what: uid === 0 ? `${path} has mode ${octal(mode & 0o7777)}` : `${path} belongs to user ${uid}`,
      where: path,
      remedy: uid === 0 ? `chmod go-w ${path}` : `chown root:root ${path}; chmod go-w ${path}`,
    }));
}

async function versions({ options: { cniPath } }: Host): Promise<Finding[]> {
  // A file that others can change is not run here: a finding says so.
  const safe = findPluginFiles(cniPath).files.filter(
    ({ isExecutable, isFirst, stats }) =>
      isExecutable && isFirst && stats !== undefined && (stats.mode & 0o022) === 0 && stats.uid === 0,
  );
  const printed = await versionsOf(safe.map(({ path }) => path));
  const findings = safe.flatMap((file): Finding[] => {
    const found = printed.get(file.path);
    if (found === undefined) return [];
    const { outcome, version } = found;
    if (outcome.is === 'timed out') return [slow(file)];
    if (version === undefined) return SUITE.includes(file.name) ? [withoutVersion(file, outcome)] : [];
    return tooOld(file, version);
  });
  return [...findings, ...mixed(safe, (path) => printed.get(path)?.version)];
}

function slow({ path }: PluginFile): Finding {
  return {
    id: 'plugin-slow',
    what: `${path} did not print its version within ${VERSION_LIMIT_MS / 1000} s`,
    where: path,
    remedy: `find out why: time ${path} < /dev/null`,
  };
}

function withoutVersion({ path, directory }: PluginFile, outcome: PluginVersion['outcome']): Finding {
  const said =
    outcome.is === 'failed'
      ? outcome.reason
      : outcome.is === 'exited'
        ? `exit code ${outcome.exitCode}, output ${JSON.stringify(outcome.output.trim().split('\n')[0]?.slice(0, 100) ?? '')}`
        : '';
  return {
    id: 'plugin-version',
    what: `${path} prints no version: ${said}`,
    where: path,
    remedy: `weft install --bin-dir ${directory}`,
  };
}

function tooOld({ name, path, directory }: PluginFile, version: string): Finding[] {
  const least = LEAST[name];
  if (least === undefined || satisfies(version, least)) return [];
  return [
    {
      id: name === 'consul-cni' ? 'consul-cni-too-old' : 'plugin-too-old',
      what: `${path} is ${version}; Nomad wants a release of at least ${least}`,
      where: path,
      remedy: `weft install --bin-dir ${directory}`,
    },
  ];
}

/** Plugins of one suite print one version; those of Weft are names of one file. */
function mixed(present: readonly PluginFile[], versionOf: (path: string) => string | undefined): Finding[] {
  const suite = present.filter(({ name }) => SUITE.includes(name));
  const basic = suite.filter(({ name }) => REQUIRED.includes(name));
  const byVersion = Map.groupBy(
    basic.filter(({ path }) => versionOf(path) !== undefined),
    ({ path }) => versionOf(path) ?? '',
  );
  const byFile = Map.groupBy(suite, ({ stats }) => `${stats?.dev}:${stats?.ino}`);
  const shared = [...byFile.values()].some((names) => names.length > 1);
  if (byVersion.size < 2 && !(shared && byFile.size > 1)) return [];
  const groups = byVersion.size > 1 ? byVersion : byFile;
  const text = [...groups.values()].map(
    (list) => `${list.map(({ name }) => name).join(', ')} ${versionOf(list[0]?.path ?? '') ?? ''}`,
  );
  return [
    {
      id: 'plugins-mixed',
      what: text.join('; '),
      where: [...new Set(suite.map(({ directory }) => directory))].join(':'),
      remedy: `weft install --bin-dir ${suite[0]?.directory ?? ''}`,
    },
  ];
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0');
}
