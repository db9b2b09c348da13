/**
 * Installs what the commands need on a machine with only Node >= 20 and npm: npm packages as locked, and system programs with apt. Prints
 * what it installs and why; does nothing when everything is present. Imports only Node itself.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';

/**
 * @typedef {object} Tool
 * @property {string} command  found in PATH (or where administrators' programs are), or an absolute path
 * @property {string} debian   the package that has it
 * @property {string} why
 * @property {true} [optional]  where it cannot be installed, the build leaves something out and says so
 */

/** @type {readonly Tool[]} used by the build */
export const BUILD_TOOLS = [
  {
    command: 'cc',
    debian: 'gcc',
    why: 'compiles the launcher of the node agent (dist/agent)',
    optional: true,
  },
  {
    command: '/usr/include/stdio.h',
    debian: 'libc6-dev',
    why: 'is the C library of the benchmark, and of the launcher where there is no musl',
    optional: true,
  },
  {
    command: 'musl-gcc',
    debian: 'musl-tools',
    why: 'links the launcher with a small C library, so that it starts in half of the time',
    optional: true,
  },
];

/** @type {readonly Tool[]} used by the plugins and the example */
export const TOOLS = [
  { command: 'ip', debian: 'iproute2', why: 'creates network namespaces' },
  { command: 'iptables', debian: 'iptables', why: "Nomad calls it, and the plugins' default rules are its" },
  { command: 'nft', debian: 'nftables', why: 'shows and flushes rules of the nftables backend' },
  { command: 'conntrack', debian: 'conntrack', why: 'lists connection tracking entries' },
];

/** @type {readonly Tool[]} used only by the tests */
export const TEST_TOOLS = [
  { command: 'unshare', debian: 'util-linux', why: 'gives each test file a private host' },
  { command: 'sysctl', debian: 'procps', why: 'reads kernel settings that plugins change' },
  { command: 'ping', debian: 'iputils-ping', why: 'sends ICMP through the networks made' },
  { command: 'curl', debian: 'curl', why: 'opens the page of the example' },
  { command: 'strace', debian: 'strace', why: 'counts the programs that a plugin starts' },
  { command: 'socat', debian: 'socat', why: 'opens SCTP associations, where the kernel has SCTP' },
  {
    command: '/usr/lib/cni/bridge',
    debian: 'containernetworking-plugins',
    why: 'the reference plugins, for interchange tests and benchmarks',
  },
];

/** @type {readonly Tool[]} used only by the benchmarks */
export const BENCH_TOOLS = [
  { command: '/usr/bin/time', debian: 'time', why: 'reports the peak memory of a program' },
];

/** @type {readonly Tool[]} used by `npm run fuzz -- --launcher` */
export const LAUNCHER_FUZZ_TOOLS = [
  { command: 'clang', debian: 'clang', why: "compiles the launcher's parser with libFuzzer" },
];

/** @type {readonly Tool[]} used by `npm run package` */
export const PACKAGE_TOOLS = [
  { command: 'dpkg-deb', debian: 'dpkg', why: 'writes the .deb' },
  { command: 'rpmbuild', debian: 'rpm', why: 'writes the .rpm' },
];

/** @type {readonly Tool[]} used by `npm run package -- --test` */
export const PACKAGE_TEST_TOOLS = [
  {
    command: 'debootstrap',
    debian: 'debootstrap',
    why: 'makes new systems of Debian and Ubuntu to install the .deb in',
  },
  { command: 'lintian', debian: 'lintian', why: 'checks the .deb' },
  { command: 'rpmlint', debian: 'rpmlint', why: 'checks the .rpm' },
];

/** Set-up cannot continue; the message is shown without a stack trace. */
export class SetupError extends Error {}

/** @param {string} root the repository @param {readonly Tool[]} tools */
export function setUp(root, tools) {
  requireNode(process.versions.node);
  installPackages(root);
  installTools(tools);
}

const OLDEST_NODE = 20;

/** npm only warns about "engines", and the errors of an old Node are misleading. @param {string} version */
export function requireNode(version) {
  if (Number.parseInt(version, 10) >= OLDEST_NODE) return;
  throw new SetupError(
    `the build needs Node ${OLDEST_NODE} or newer, this is ${version} (${process.execPath}); the executables contain their own`,
  );
}

/** `npm ci` when a locked package is absent or of another version. @param {string} root */
function installPackages(root) {
  const stale = firstStalePackage(root);
  if (stale === undefined) return;
  say(`npm ci: ${stale}; installing the npm packages as locked (a Node 26 binary among them, ~40 MB)`);
  const { status, error } = spawnSync(
    'npm',
    ['ci', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'],
    {
      cwd: root,
      stdio: 'inherit',
    },
  );
  if (error) throw new SetupError(`cannot start npm (${error.message}); install npm`);
  if (status !== 0) throw new SetupError('npm ci failed; see its output above');
  const absent = firstStalePackage(root);
  if (absent === undefined) return;
  // npm ignores a failed optional package, and the Node binaries are optional: there is one for each architecture.
  throw new SetupError(
    `npm ci succeeded, but ${absent}; check that the registry is reachable and run this again`,
  );
}

/**
 * npm records what it has installed in node_modules/.package-lock.json, with the keys of package-lock.json.
 * @param {string} root @returns {string | undefined} the reason to install
 */
function firstStalePackage(root) {
  const note = resolve(root, 'node_modules/.package-lock.json');
  if (!existsSync(note)) return 'there is no node_modules';
  const locked = JSON.parse(readFileSync(resolve(root, 'package-lock.json'), 'utf8')).packages;
  const installed = JSON.parse(readFileSync(note, 'utf8')).packages;
  for (const [path, entry] of Object.entries(locked)) {
    if (path === '' || (entry.optional && !fits(entry))) continue;
    if (installed[path]?.version !== entry.version) return `${path} is not at version ${entry.version}`;
  }
  return undefined;
}

/** Whether npm would install this optional package here. @param {{ os?: string[], cpu?: string[], libc?: string[] }} entry */
function fits({ os, cpu, libc }) {
  return (
    (os?.includes(process.platform) ?? true) &&
    (cpu?.includes(process.arch) ?? true) &&
    (libc?.includes('glibc') ?? true)
  );
}

/** @param {readonly Tool[]} tools */
function installTools(tools) {
  const canInstall = process.getuid?.() === 0 && isInstalled('apt-get');
  const missing = tools.filter(
    ({ command, optional }) => !isInstalled(command) && (canInstall || optional !== true),
  );
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map(({ debian }) => debian))];
  if (!isInstalled('apt-get')) {
    throw new SetupError(
      `missing here: ${missing.map(({ command, why }) => `${command} (${why})`).join(', ')}. ` +
        `This command installs packages only with apt-get (Debian, Ubuntu: ${packages.join(' ')}). Install your distribution's packages and run it again.`,
    );
  }
  if (process.getuid?.() !== 0) {
    throw new SetupError(`run this as root, or first: apt-get install ${packages.join(' ')}`);
  }
  for (const { command, debian, why } of missing) say(`apt-get install ${debian}: ${command} ${why}`);
  if (!aptGet('install', ...packages) && !(aptGet('update') && aptGet('install', ...packages))) {
    throw new SetupError(`apt-get could not install ${packages.join(' ')}; see its output above`);
  }
}

/** A machine that has just been started updates itself first and holds dpkg's lock; seconds. */
const WAIT_FOR_LOCK = ['-o', 'DPkg::Lock::Timeout=120'];

/** @param {string[]} args */
function aptGet(...args) {
  const options = ['-q', '-y', '--no-install-recommends', ...WAIT_FOR_LOCK];
  const { status } = spawnSync('apt-get', [...options, ...args], {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  });
  return status === 0;
}

/** @param {string} command */
export function isInstalled(command) {
  const folders = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin', '/usr/bin', '/bin'];
  return folders
    .filter((folder) => folder !== '')
    .some((folder) => {
      try {
        accessSync(resolve(folder, command), command.endsWith('.h') ? constants.R_OK : constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/** @param {string} line */
function say(line) {
  process.stdout.write(`${line}\n`);
}
