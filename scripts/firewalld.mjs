/**
 * The distribution's firewalld for the tests of the firewall plugin. Installing it would start a firewall on this machine, so its packages
 * are only unpacked into dist/tools/firewalld, where nothing runs them but the test, on a host of its own. Imports only Node itself.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { resolve } from 'node:path';

/** Programs without which the tests cannot run. */
const PROGRAMS = ['/usr/bin/dbus-daemon', '/usr/bin/busctl', '/usr/sbin/firewalld', '/usr/bin/firewall-cmd'];
/** The packages that they are in. */
const PACKAGES = ['firewalld', 'dbus-daemon', 'systemd'];

/** Where it cannot be had (no apt-get, no network) that is said, and its tests are skipped with a reason. @param {string} root */
export function provideFirewalld(root) {
  const folder = resolve(root, 'dist/tools/firewalld');
  if (PROGRAMS.every((file) => existsSync(file) || existsSync(`${folder}${file}`))) return;
  process.stdout.write(
    'unpacking firewalld for its tests into dist/tools/firewalld (it is not installed, and nothing is started)\n',
  );
  const partial = `${folder}.partial`;
  try {
    unpackInto(partial);
    rmSync(folder, { recursive: true, force: true });
    renameSync(partial, folder);
  } catch (thrown) {
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    process.stdout.write(`firewalld could not be had, so its tests will be skipped: ${why}\n`);
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
}

/** @param {string} folder */
function unpackInto(folder) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(`${folder}/debs`, { recursive: true });
  const packages = download(`${folder}/debs`);
  for (const deb of readdirSync(`${folder}/debs`)) run('dpkg-deb', ['-x', `${folder}/debs/${deb}`, folder]);
  rmSync(`${folder}/debs`, { recursive: true });
  // Since /lib is a link to /usr/lib, a package may use either name.
  if (existsSync(`${folder}/lib`)) run('cp', ['-a', `${folder}/lib/.`, `${folder}/usr/lib/`]);
  choosePolicy(`${folder}/usr/share/polkit-1/actions/org.fedoraproject.FirewallD1`);
  const absent = PROGRAMS.find((file) => !existsSync(file) && !existsSync(`${folder}${file}`));
  if (absent !== undefined) throw new Error(`${absent} is in none of ${packages.join(' ')}`);
}

/**
 * Who may ask firewalld for what: its installation makes this a link, by update-alternatives. Where polkit runs and knows nothing of
 * it, firewalld refuses everybody.
 * @param {string} policy
 */
function choosePolicy(policy) {
  const choice = `${policy}.server.policy.choice`;
  if (existsSync(choice) && !existsSync(`${policy}.policy`)) copyFileSync(choice, `${policy}.policy`);
}

/** Lists of packages that are too old name files that are gone: then they are fetched anew. @param {string} folder */
function download(folder) {
  const attempt = () => {
    const packages = missingPackages();
    // As root apt fetches as a user of its own, who may not write here: that is only a warning.
    run('apt-get', [...QUICK, 'download', ...packages], folder);
    return packages;
  };
  try {
    return attempt();
  } catch {
    run('apt-get', [...QUICK, 'update']);
    return attempt();
  }
}

/** Without a network the tests are not to wait for minutes. */
const QUICK = ['-q', '-o', 'Acquire::http::Timeout=10', '-o', 'Acquire::Retries=0'];

/** What installing it would install here: it and those of its dependencies that are absent. */
function missingPackages() {
  const said = run('apt-get', ['-q', '-s', '--no-install-recommends', 'install', ...PACKAGES]);
  return [...said.matchAll(/^Inst (\S+)/gm)].map(([, name = '']) => name);
}

/** @param {string} file @param {string[]} args @param {string} [cwd] */
function run(file, args, cwd) {
  const { status, stdout, stderr, error } = spawnSync(file, args, { cwd, encoding: 'utf8' });
  if (error) throw new Error(`${file} cannot be started (${error.message})`);
  if (status !== 0)
    throw new Error(`${file} ${args.slice(0, 3).join(' ')}: ${stderr.trim().split('\n').at(-1)}`);
  return stdout;
}
