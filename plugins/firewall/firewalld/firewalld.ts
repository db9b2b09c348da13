import { DBusConnection } from './dbus/connection.ts';
import { systemBusSocket } from './dbus/address.ts';
import { isErrno } from '../../../shared/kernel/errno.ts';

/**
 * firewalld's zones over the system bus (firewalld.dbus(5), interface org.fedoraproject.FirewallD1.zone). Sources that are
 * added so last until firewalld is reloaded or restarted, as those of the reference do.
 */
export class Firewalld {
  readonly #bus: DBusConnection;

  /** @returns undefined where there is no system bus, or no firewalld on it */
  static connect(): Firewalld | undefined {
    const bus = connectBus();
    if (bus === undefined) return undefined;
    try {
      if (bus.hasOwner(NAME)) return new Firewalld(bus);
    } catch (thrown) {
      bus.close();
      throw thrown;
    }
    bus.close();
    return undefined;
  }

  /** Use {@link Firewalld.connect}. */
  private constructor(bus: DBusConnection) {
    this.#bus = bus;
  }

  /** The zone that a source is in; undefined when it is in none. */
  zoneOf(source: string): string | undefined {
    const [zone] = this.#call('getZoneOfSource', source);
    return typeof zone === 'string' && zone !== '' ? zone : undefined;
  }

  /** @throws DBusError when the zone does not exist, or the source is in one already */
  addSource(zone: string, source: string): void {
    this.#call('addSource', zone, source);
  }

  /** @throws DBusError when the source is not in the zone */
  removeSource(zone: string, source: string): void {
    this.#call('removeSource', zone, source);
  }

  hasSource(zone: string, source: string): boolean {
    return this.#call('querySource', zone, source)[0] === true;
  }

  /** Sources of the zone as they were added. @throws DBusError when it does not exist */
  sources(zone: string): string[] {
    const [list] = this.#call('getSources', zone);
    return Array.isArray(list) ? list.filter((source) => typeof source === 'string') : [];
  }

  close(): void {
    this.#bus.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #call(member: string, ...values: string[]): readonly unknown[] {
    const call = { member, signature: 's'.repeat(values.length), arguments: values };
    return this.#bus.call({ ...ZONES, ...call }, FIREWALLD_LIMIT_MS);
  }
}

const NAME = 'org.fedoraproject.FirewallD1';
const ZONES = {
  destination: NAME,
  path: '/org/fedoraproject/FirewallD1',
  interface: 'org.fedoraproject.FirewallD1.zone',
} as const;
/** The bus itself answers at once. */
const BUS_LIMIT_MS = 5_000;
/**
 * firewalld does one thing at a time, each change takes it some 40 ms, and a reload of everything some seconds: room for a
 * hundred containers that start at once.
 */
const FIREWALLD_LIMIT_MS = 30_000;

function connectBus(): DBusConnection | undefined {
  const socket = systemBusSocket(process.env);
  if (socket === undefined) return undefined;
  try {
    return DBusConnection.open(socket, BUS_LIMIT_MS);
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT', 'ENOTDIR', 'ECONNREFUSED')) return undefined;
    throw thrown;
  }
}
