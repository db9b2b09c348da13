/**
 * Installs the packages of dist/packages in new systems of Debian 12 and 13 and Ubuntu 24.04 (debootstrap), upgrades, removes and purges
 * them; lintian; rpmlint; rpm.
 * usage: npm run package -- --test   (WEFT_ROOTS: directory that keeps the new systems; default dist/tools/debian)
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';

const root = resolve(import.meta.dirname, '../..');
const packages = join(root, 'dist/packages');
const systems = process.env['WEFT_ROOTS'] ?? join(root, 'dist/tools/debian');
const [deb = ''] = globSync(`${packages}/*.deb`);
const [rpm = ''] = globSync(`${packages}/*.rpm`);

const DEBIAN = ['http://deb.debian.org/debian'];
/** Debian's debootstrap knows no release of Ubuntu after its own, whose script they all share; nor is its keyring in Debian. */
const UBUNTU = ['https://archive.ubuntu.com/ubuntu', 'gutsy'];
const UBUNTU_KEYRING = '/usr/share/keyrings/ubuntu-archive-keyring.gpg';
const SUITES: Readonly<Record<string, readonly string[]>> = {
  bookworm: DEBIAN,
  trixie: DEBIAN,
  noble: UBUNTU,
};

function check(title: string, work: () => void): void {
  try {
    work();
    console.log(`ok   ${title}`);
  } catch (thrown) {
    process.exitCode = 1;
    console.log(`FAIL ${title}\n${thrown instanceof Error ? (thrown.stack ?? '') : String(thrown)}`);
  }
}

function run(file: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(file, args, { encoding: 'utf8', maxBuffer: 2 ** 26 });
  assert.is(status, 0, `${file} ${args.join(' ')}: ${stdout}${stderr}`);
  return stdout;
}

function checkRpm(): void {
  const query = (format: string): string => run('rpm', '-qp', '--queryformat', format, rpm);
  assert.match(
    query('%{NAME} %{VERSION} %{ARCH} %{LICENSE}'),
    /^weft 2\.\d+\.\d+ (x86_64|aarch64) Apache-2\.0$/,
  );
  assert.match(run('rpm', '-qp', '--requires', rpm), 'libc.so.6(GLIBC_2.28)(64bit)');
  assert.match(run('rpm', '-qp', '--scripts', rpm), '/usr/bin/weft install --agent');
  const folder = mkdtempSync('/var/tmp/weft-rpm-');
  try {
    run('sh', '-c', `cd '${folder}' && rpm2cpio '${rpm}' | cpio -idm --quiet`);
    const executable = readFileSync(join(folder, 'usr/lib/weft/weft'));
    assert.ok(executable.equals(readFileSync(join(root, 'dist/bin/weft'))), 'the executable');
    assert.match(run(join(folder, 'usr/bin/weft'), 'version'), /^weft 2\./);
    assert.match(
      readFileSync(join(folder, 'usr/lib/systemd/system/weft-agent.service'), 'utf8'),
      'ExecStart=/usr/bin/weft agent',
    );
    for (const file of ['man/man8/weft.8.gz', 'man/man5/weft.json.5.gz', 'zsh/site-functions/_weft'])
      assert.ok(existsSync(join(folder, 'usr/share', file)), file);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** On an overlay of a new system, with Debian's reference plugins in /opt/cni/bin. */
function checkSuite(suite: string, source: readonly string[]): void {
  const system = join(systems, suite);
  mkdirSync(systems, { recursive: true });
  if (!existsSync(join(system, 'usr/bin/dpkg'))) {
    const trust = source !== UBUNTU ? [] : [ubuntuTrust()];
    execFileSync('debootstrap', ['--variant=minbase', ...trust, suite, system, ...source], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
  }
  const work = mkdtempSync('/var/tmp/weft-deb-');
  try {
    const upgraded = nextVersion(work);
    const names = { SYSTEM: system, WORK: work, UPGRADED: upgraded, PACKAGE: deb };
    const script = SCRIPT.replaceAll(
      /\b(SYSTEM|WORK|UPGRADED|PACKAGE)\b/g,
      (name) => names[name as keyof typeof names],
    );
    run('unshare', '--mount', '--propagation', 'private', 'sh', '-euc', script);
  } finally {
    rmSync(work, { recursive: true });
  }
}

/** Without Ubuntu's keyring, TLS alone authenticates its mirror. */
function ubuntuTrust(): string {
  return existsSync(UBUNTU_KEYRING) ? `--keyring=${UBUNTU_KEYRING}` : '--no-check-gpg';
}

/** The same files as a later version, not compressed. */
function nextVersion(work: string): string {
  const file = join(work, 'upgraded.deb');
  run('dpkg-deb', '--raw-extract', deb, join(work, 'files'));
  run('sed', '-i', 's/^Version: .*/&+1/', join(work, 'files/DEBIAN/control'));
  run('dpkg-deb', '-Znone', '--root-owner-group', '--build', join(work, 'files'), file);
  rmSync(join(work, 'files'), { recursive: true });
  return file;
}

const SCRIPT = `
fail() { echo "$*" >&2; exit 1; }
mkdir WORK/layers WORK/root
mount -t tmpfs tmpfs WORK/layers
mkdir WORK/layers/upper WORK/layers/work
mount -t overlay overlay -o lowerdir=SYSTEM,upperdir=WORK/layers/upper,workdir=WORK/layers/work WORK/root
cd WORK/root
mount -t proc proc proc
mkdir -p opt/cni/bin
cp /usr/lib/cni/bridge /usr/lib/cni/firewall /usr/lib/cni/macvlan opt/cni/bin/
before=$(cd opt/cni && find . -type f | sort | xargs sha256sum)
in_root() { DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot WORK/root "$@"; }
requires_weft() {
  for name in loopback bridge host-local firewall portmap consul-tproxy consul-cni; do
    in_root /opt/cni/bin/$name 2>&1 | grep -q "^CNI $name plugin v2" || fail "$1: $name"
  done
}
cp PACKAGE tmp/weft.deb
in_root dpkg -i /tmp/weft.deb
requires_weft install
in_root weft version | grep -q '^weft 2'
[ -L etc/systemd/system/multi-user.target.wants/weft-agent.service ] || fail 'the agent is not enabled'
[ "$(stat -c %i usr/lib/weft/weft)" = "$(stat -c %i opt/cni/bin/.weft/????????????????????????????????)" ] || fail 'a second copy'
[ ! -e usr/local/bin/weft ] || fail 'a second command'
in_root weft install --agent | grep -q 'nothing was changed'
# What systemctl disable does; minimal systems have no systemctl.
rm etc/systemd/system/multi-user.target.wants/weft-agent.service
cp UPGRADED tmp/weft.deb
in_root dpkg -i /tmp/weft.deb
requires_weft upgrade
[ ! -L etc/systemd/system/multi-user.target.wants/weft-agent.service ] || fail 'the upgrade enabled the agent again'
in_root dpkg -r weft
[ "$(cd opt/cni && find . -type f | sort | xargs sha256sum)" = "$before" ] || fail "remove: $(find opt/cni)"
in_root dpkg -i /tmp/weft.deb
mkdir -p etc/weft && echo '{}' >etc/weft/weft.json
in_root dpkg -P weft
[ "$(cd opt/cni && find . -type f | sort | xargs sha256sum)" = "$before" ] || fail "purge: $(find opt/cni)"
for path in etc/weft usr/lib/weft usr/bin/weft usr/share/doc/weft etc/systemd/system/multi-user.target.wants/weft-agent.service; do
  [ ! -e $path ] && [ ! -L $path ] || fail "purge left $path"
done
[ -z "$(in_root dpkg -l weft 2>/dev/null | grep weft)" ] || fail 'dpkg still knows the package'
echo 'Acme bridge 7' | sed 's/.*/#!\\/bin\\/sh\\necho "&"/' >opt/cni/bin/bridge
! in_root dpkg -i /tmp/weft.deb || fail 'installed over another vendor'
`;

check('lintian', () => run('lintian', '--allow-root', '--fail-on', 'error,warning', deb));
check('rpmlint', () => {
  const said = run('rpmlint', '-c', join(root, 'packaging/rpm/rpmlint.toml'), rpm);
  assert.match(said, /0 errors, 0 warnings/, said);
});
check('rpm -qp, unpacked files', checkRpm);
for (const [suite, source] of Object.entries(SUITES))
  check(`${suite}: install, upgrade, disable, remove, purge`, () => checkSuite(suite, source));
