/**
 * Runs test files on other kernels: QEMU with the kernel, iptables and nftables of a Debian release. The root file system is made of the
 * release's packages, once, in dist/tools/vm; nothing of it is installed on this machine. Imports only Node itself.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { nodeBase } from '../build/node-binary.mjs';
import { SetupError } from './setup.mjs';

/** Debian's releases by name: kernels 5.10, 6.1, 6.12; iptables 1.8.7, 1.8.9, 1.8.11; and the newest with the kernel of its backports. */
export const RELEASES = ['bullseye', 'bookworm', 'trixie', 'trixie-backports'];

/** What features of kernels matter to, and traffic on each back end: run where no file is named. */
const DEFAULT_PARTS = [
  ...[
    'test/host/plugins/bridge/vlan',
    'bridge/masquerade-rules-',
    'rtnetlink/bridge-ports',
    'test/host/kernels/',
  ],
  ...[
    'iptables-nft/encode-rule',
    'portmap/traffic-',
    'firewall/nftables/traffic',
    'test/host/plugins/consul-tproxy/backends',
  ],
];

/** @type {readonly import('./setup.mjs').Tool[]} */
export const VM_TOOLS = [
  { command: 'qemu-system-x86_64', debian: 'qemu-system-x86', why: 'runs the virtual machine' },
  { command: 'debootstrap', debian: 'debootstrap', why: "makes the machine's root file system of packages" },
  { command: 'mke2fs', debian: 'e2fsprogs', why: 'writes it into an image' },
  { command: 'busybox', debian: 'busybox-static', why: 'is the first program in the machine' },
  { command: 'cpio', debian: 'cpio', why: 'writes its initial RAM disk' },
  { command: 'xz', debian: 'xz-utils', why: 'unpacks kernel modules' },
];

const KERNEL = 'linux-image-amd64';
/** Programs that the tests use, and what they need on a small system. */
const PACKAGES = [
  ...[KERNEL, 'kmod', 'iproute2', 'iptables', 'nftables', 'conntrack', 'procps'],
  ...['iputils-ping', 'curl', 'strace', 'libatomic1', 'containernetworking-plugins', 'socat'],
];
/** What the initial RAM disk needs before the root file system, with its modules, is there. */
const MODULES = ['virtio_pci', 'virtio_blk', 'crc32c_generic', 'ext4', '9pnet_virtio', '9p'];
const MEMORY_MB = 3072;
/** How much longer a test may take on an emulated processor. One file at a time: the plugins' own limits stay as they are. */
const ENVIRONMENT = 'WEFT_TEST_TIME_FACTOR=12 WEFT_TEST_WORKERS=1';
/** For all test files of one kernel. */
const TIMEOUT_MINUTES = 60;

/**
 * @param {string} root the repository @param {string[]} args releases, and parts of paths of test files
 * @returns {Promise<number>} 0 when the tests passed on every kernel
 */
export async function runMachines(root, args) {
  const releases = args.filter((word) => RELEASES.includes(word));
  const parts = args.filter((word) => !RELEASES.includes(word));
  const option = parts.find((word) => word.startsWith('-'));
  if (option !== undefined)
    throw new SetupError(
      `vm has no option ${option}: npm run vm -- [${RELEASES.join(' | ')}]... [PART OF A TEST FILE'S PATH]...`,
    );
  let failed = 0;
  for (const release of releases.length > 0 ? releases : RELEASES) {
    const folder = resolve(root, 'dist/tools/vm', release);
    if (!existsSync(`${folder}/root.ext4`) || readText(`${folder}/packages`) !== PACKAGES.join())
      makeMachine(folder, release);
    makeInitrd(root, folder);
    process.stdout.write(`\n== Debian ${release}\n`);
    failed |= await boot(root, folder, parts.length > 0 ? parts : DEFAULT_PARTS);
  }
  return failed;
}

/** @param {string} folder @param {string} release */
function makeMachine(folder, release) {
  process.stdout.write(
    `making a root file system of Debian ${release} in dist/tools/vm (about 250 MB of packages, some minutes)\n`,
  );
  const tree = `${folder}/tree`;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(tree, { recursive: true });
  try {
    const suite = release.replace('-backports', '');
    const packages = PACKAGES.filter((name) => suite === release || name !== KERNEL);
    run('debootstrap', ['--variant=minbase', `--include=${packages.join(',')}`, suite, tree]);
    if (suite !== release) addKernel(tree, suite, release);
    const kernel = readdirSync(`${tree}/boot`).find((name) => name.startsWith('vmlinuz-'));
    if (kernel === undefined) throw new SetupError(`no kernel in the packages of Debian ${release}`);
    copyFileSync(`${tree}/boot/${kernel}`, `${folder}/vmlinuz`);
    copyModules(`${tree}/lib/modules/${kernel.replace('vmlinuz-', '')}`, `${folder}/initrd/modules`);
    for (const left of ['var/cache/apt', 'var/lib/apt/lists', 'usr/share/doc', 'boot'])
      rmSync(`${tree}/${left}`, { recursive: true, force: true });
    run('mke2fs', ['-q', '-t', 'ext4', '-d', tree, `${folder}/root.partial`, '1500M']);
    run('mv', [`${folder}/root.partial`, `${folder}/root.ext4`]);
    writeFileSync(`${folder}/packages`, PACKAGES.join());
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
}

/** The kernel of a suite's backports. @param {string} tree @param {string} suite @param {string} backports */
function addKernel(tree, suite, backports) {
  const sources = readFileSync(`${tree}/etc/apt/sources.list`, 'utf8');
  writeFileSync(
    `${tree}/etc/apt/sources.list.d/backports.list`,
    sources.replaceAll(` ${suite} `, ` ${backports} `),
  );
  run('chroot', [tree, 'apt-get', 'update']);
  run('chroot', [tree, 'apt-get', 'install', '-y', '--no-install-recommends', '-t', backports, KERNEL]);
}

/** @param {string} file */
function readText(file) {
  return existsSync(file) ? readFileSync(file, 'utf8') : '';
}

/**
 * Copies the modules that {@link MODULES} need, and writes the order in which to insert them.
 * @param {string} from a kernel's folder, with modules.dep: `path: path ...`, the dependencies of each @param {string} to
 */
function copyModules(from, to) {
  const dependencies = new Map(
    readFileSync(`${from}/modules.dep`, 'utf8')
      .split('\n')
      .filter((line) => line.includes(':'))
      .map((line) => {
        const [path = '', rest = ''] = line.split(':');
        return [path, rest.trim().split(' ').filter(Boolean)];
      }),
  );
  const nameOf = (/** @type {string} */ path) =>
    basename(path)
      .replace(/\.ko.*/, '')
      .replaceAll('-', '_');
  const order = [];
  for (const name of MODULES) {
    // What is built into the kernel is not listed.
    const path = [...dependencies.keys()].find((one) => nameOf(one) === name);
    if (path !== undefined) order.push(...(dependencies.get(path) ?? []).toReversed(), path);
  }
  mkdirSync(to, { recursive: true });
  for (const path of new Set(order)) {
    copyFileSync(`${from}/${path}`, `${to}/${basename(path)}`);
    if (path.endsWith('.xz')) run('xz', ['-d', '-f', `${to}/${basename(path)}`]);
  }
  const files = [...new Set(order)].map((path) => basename(path).replace(/\.xz$/, ''));
  writeFileSync(`${to}/order`, `${files.join('\n')}\n`);
}

/** @param {string} root @param {string} folder */
function makeInitrd(root, folder) {
  const tree = `${folder}/initrd`;
  mkdirSync(`${tree}/bin`, { recursive: true });
  copyFileSync('/bin/busybox', `${tree}/bin/busybox`);
  run('ln', ['-sf', 'busybox', `${tree}/bin/sh`]);
  copyFileSync(resolve(root, 'test/vm/initrd.sh'), `${tree}/init`);
  run('chmod', ['755', `${tree}/init`, `${tree}/bin/busybox`]);
  run('sh', ['-c', `cd '${tree}' && find . | cpio --quiet -o -H newc >'${folder}/initrd.cpio'`]);
}

/** @param {string} root @param {string} folder @param {readonly string[]} parts @returns {Promise<number>} */
async function boot(root, folder, parts) {
  const out = join(folder, 'out');
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out, { recursive: true });
  writeFileSync(
    `${out}/command`,
    `${ENVIRONMENT} ${nodeBase(root).file} --no-warnings test/run.ts ${parts.join(' ')}\n`,
  );
  const share = (/** @type {string} */ path, /** @type {string} */ tag, more = '') => [
    ...['-virtfs', `local,path=${path},mount_tag=${tag},security_model=none,multidevs=remap${more}`],
  ];
  const options = [
    ...['-accel', 'tcg', '-cpu', 'max', '-smp', '2', '-m', String(MEMORY_MB)],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-serial', 'stdio', '-no-reboot'],
    ...['-kernel', `${folder}/vmlinuz`, '-initrd', `${folder}/initrd.cpio`],
    ...['-append', `console=ttyS0 quiet panic=-1 weft.root=${root}`],
    ...['-drive', `file=${folder}/root.ext4,format=raw,if=virtio,snapshot=on`],
    ...share(root, 'repository', ',readonly=on'),
    ...share(out, 'out'),
  ];
  await end(spawn('qemu-system-x86_64', options, { stdio: ['ignore', 'inherit', 'inherit'] }));
  if (existsSync(`${out}/status`)) return readFileSync(`${out}/status`, 'utf8').trim() === '0' ? 0 : 1;
  process.stdout.write(
    `0 passed, 1 failed: the machine of ${basename(dirname(out))} ended without a result\n`,
  );
  return 1;
}

/** @param {import('node:child_process').ChildProcess} machine @returns {Promise<void>} */
function end(machine) {
  return new Promise((done, fail) => {
    const timer = setTimeout(() => machine.kill('SIGKILL'), TIMEOUT_MINUTES * 60_000);
    const stop = () => {
      machine.kill('SIGKILL');
      fail(new SetupError('stopped by a signal'));
    };
    process.once('SIGINT', stop).once('SIGTERM', stop);
    machine.once('error', fail);
    machine.once('close', () => {
      clearTimeout(timer);
      process.off('SIGINT', stop).off('SIGTERM', stop);
      done();
    });
  });
}

/** @param {string} file @param {string[]} args */
function run(file, args) {
  const { status, stdout, stderr, error } = spawnSync(file, args, {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  });
  if (error) throw new SetupError(`cannot start ${file} (${error.message})`);
  if (status === 0) return;
  const said = `${stderr}${stdout}`.trim().split('\n').slice(-3).join('\n');
  throw new SetupError(`${file} failed (exit code ${status}): ${said}`);
}
