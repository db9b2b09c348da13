/** Nomad's list in a user namespace (rootless), with traffic to a published port and out of the container: on every back end. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { executable } from '../../support/executables.ts';
import { suite } from '../../support/suite.ts';
import { BACKENDS } from '../../support/tproxy.ts';

const test = suite('plugins in a user namespace', { limit: 60 });
const LIST = resolve(import.meta.dirname, '../../../conflist/nomad.conflist');

/** $1 weft, $2 the list, $3 node, $4 variant of iptables. The kernel loads no module for a user namespace; the host uses these already. */
const SCRIPT = `set -e
  mount -t tmpfs none /run; mkdir -p /run/netns /run/variant
  for name in iptables ip6tables; do
    for program in '' -save -restore; do ln -s "/usr/sbin/$name-$4$program" "/run/variant/$name$program"; done
  done
  export PATH=/run/variant:$PATH
  ip link set lo up; ip netns add c1; ip netns add outside
  ip link add up0 type veth peer name eth0 netns outside
  ip address add 192.0.2.1/24 dev up0; ip link set up0 up
  ip -n outside address add 192.0.2.9/24 dev eth0; ip -n outside link set eth0 up
  call() { "$1" run "$2" --conflist "$3" --netns c1 --id c1 --port 8080:80; }
  call "$1" add "$2" >/dev/null; call "$1" check "$2"
  serve() {
    nsenter --net=/run/netns/$1 "$2" -e "net.createServer((c) => c.end(c.remoteAddress)).listen($3, '0.0.0.0', () => console.log())" >/run/ready-$1 &
    until [ -s /run/ready-$1 ]; do sleep 0.1; done
  }
  ask() { timeout 20 nsenter --net=/run/netns/$1 bash -c "exec 3<>/dev/tcp/$2/$3; cat <&3"; }
  serve c1 "$3" 80; serve outside "$3" 81
  echo "in: $(ask outside 192.0.2.1 8080)"
  echo "out: $(ask c1 192.0.2.9 81)"
  call "$1" del "$2"
  echo "left: $(iptables-save -t nat | grep -c 'dport 8080' || true) $(nft list ruleset | grep -c 'dport 8080' || true)"`;

for (const { name, backend } of BACKENDS) {
  test(`${name}: ADD, CHECK, traffic through a published port and masqueraded, DEL`, () => {
    const variant = name === 'iptables-legacy' ? 'legacy' : 'nft';
    // The modules of this back end.
    if (backend === 'iptables') {
      for (const family of ['iptables', 'ip6tables'])
        for (const table of ['nat', 'filter']) spawnSync(`${family}-${variant}`, ['-t', table, '-L', '-n']);
    }
    mkdirSync('/etc/weft', { recursive: true });
    writeFileSync('/etc/weft/weft.json', JSON.stringify({ backend }));
    const { status, stdout, stderr } = spawnSync(
      'unshare',
      [
        ...['--user', '--map-root-user', '--net', '--mount', '--pid', '--fork', '--kill-child'],
        ...['sh', '-c', SCRIPT, 'sh', executable('weft'), LIST, process.execPath, variant],
      ],
      { encoding: 'utf8' },
    );
    assert.is(status, 0, stderr);
    assert.is(stdout, 'in: 192.0.2.9\nout: 192.0.2.1\nleft: 0 0\n');
  });
}

test.run();
