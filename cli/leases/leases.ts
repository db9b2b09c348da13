import { writeAll } from '../../shared/kernel/stdio.ts';
import { readOptions } from '../../shared/config/command-line.ts';
import { DATA_DIRS, findLeases, type LeaseState } from './find.ts';
import { formatAge, formatTable } from './table.ts';

const HELP = `usage: weft leases [options]

Lists the addresses that host-local has given out: address, container, interface, age, and whether their network still exists.

  --data-dir FOLDER   where the networks' stores are, repeatable (default: ${DATA_DIRS.join(' and ')})
  --network NAME      only this network
  --json              one JSON list instead of a table

state   live        a network namespace has the address
        no address  the container's namespace is there, but not the address
        gone        no namespace of it is to be found: DEL or GC was never called, or another machine's folder is mounted here
        not a lease the file's text names no container: whoever put it there keeps the address from being given
`;

const OPTIONS = {
  'data-dir': { type: 'string', multiple: true },
  network: { type: 'string' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;

export function leases(argv: readonly string[]): number {
  const { values } = readOptions(argv, OPTIONS);
  if (values.help === true) return print(HELP);
  const found = findLeases(values['data-dir'] ?? DATA_DIRS, values.network);
  if (values.json === true) return print(`${JSON.stringify(found.map(forMachines), null, 2)}\n`);
  if (found.length === 0) return print('no leases\n');
  return print(
    formatTable(
      ['NETWORK', 'ADDRESS', 'CONTAINER', 'INTERFACE', 'AGE', 'STATE', 'NAMESPACE'],
      found.map((lease) => [
        lease.network,
        lease.address,
        lease.container ?? '-',
        lease.ifname ?? '-',
        formatAge(lease.ageSeconds),
        lease.state,
        lease.namespace ?? '-',
      ]),
    ),
  );
}

/** Absent things are null, so that every entry has the same keys. */
function forMachines(lease: LeaseState): object {
  const {
    network,
    address,
    container,
    ifname,
    leasedAt,
    ageSeconds,
    state,
    namespace,
    hostInterfaces,
    file,
  } = lease;
  return {
    network,
    address,
    container: container ?? null,
    interface: ifname ?? null,
    leasedAt,
    ageSeconds,
    state,
    namespace: namespace ?? null,
    hostInterfaces,
    file,
  };
}

function print(text: string): number {
  writeAll(1, text);
  return 0;
}
