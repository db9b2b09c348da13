import { existsSync } from 'node:fs';
import { CniCode, CniError } from '../../../shared/cni/errors.ts';
import { deadlineIn } from '../../../shared/kernel/deadline.ts';
import { findProgram, runProgram } from '../../../shared/process/run-program.ts';

/** A method that firewalld or the bus rejected; the message is theirs. */
export class FirewalldError extends CniError {}

/**
 * firewalld's zones over the system bus (firewalld.dbus(5), interface org.fedoraproject.FirewallD1.zone), through systemd's
 * busctl(1). Sources are runtime settings, as the reference's: firewalld forgets them when it is reloaded or restarted.
 */
export class Firewalld {
  readonly #busctl: string;

  /** @returns why firewalld cannot be used, as a sentence, if it cannot */
  static connect(): Firewalld | string {
    if (!hasSystemBus()) return 'there is no system bus';
    const busctl = findProgram('busctl');
    if (busctl === undefined) return 'the program busctl, of systemd, is not installed';
    const [owned] = call(busctl, BUS, 'NameHasOwner', [BUS_NAME]);
    return owned === true ? new Firewalld(busctl) : 'nothing owns its name on the system bus';
  }

  /** Use {@link Firewalld.connect}. */
  private constructor(busctl: string) {
    this.#busctl = busctl;
  }

  /** The zone that a source is in; undefined if it is in none. */
  zoneOf(source: string): string | undefined {
    const [zone] = this.#call('getZoneOfSource', source);
    return typeof zone === 'string' && zone !== '' ? zone : undefined;
  }

  /** @throws FirewalldError if the zone does not exist, or the source is in a zone already */
  addSource(zone: string, source: string): void {
    this.#call('addSource', zone, source);
  }

  /** @throws FirewalldError if the source is not in the zone */
  removeSource(zone: string, source: string): void {
    this.#call('removeSource', zone, source);
  }

  /** The sources of the zone as they were added. @throws FirewalldError if it does not exist */
  sources(zone: string): string[] {
    const [list] = this.#call('getSources', zone);
    return Array.isArray(list) ? list.filter((source) => typeof source === 'string') : [];
  }

  #call(method: string, ...values: string[]): readonly unknown[] {
    return call(this.#busctl, ZONES, method, values);
  }
}

/** A system bus that does not answer counts as none. */
export function isFirewalldRunning(): boolean {
  try {
    return typeof Firewalld.connect() !== 'string';
  } catch (thrown) {
    if (thrown instanceof CniError) return false;
    throw thrown;
  }
}

const BUS_NAME = 'org.fedoraproject.FirewallD1';
/** Service, object and interface, as busctl's `call` takes them. */
const ZONES = [BUS_NAME, '/org/fedoraproject/FirewallD1', 'org.fedoraproject.FirewallD1.zone'] as const;
const BUS = ['org.freedesktop.DBus', '/org/freedesktop/DBus', 'org.freedesktop.DBus'] as const;
/** D-Bus specification, "Well-known Message Bus Instances". */
const BUS_SOCKET = '/var/run/dbus/system_bus_socket';

/** Saves the start of a program on hosts without D-Bus. */
function hasSystemBus(): boolean {
  return (process.env['DBUS_SYSTEM_BUS_ADDRESS'] ?? '') !== '' || existsSync(BUS_SOCKET);
}

/**
 * @param values strings
 * @returns the values that the method returned
 * @throws FirewalldError with the text of the method's error; CniError 11 if the call's deadline passes
 */
function call(
  busctl: string,
  target: readonly string[],
  method: string,
  values: readonly string[],
): readonly unknown[] {
  const options = ['--system', '--json=short', '--auto-start=no', `--timeout=${BUSCTL_TIMEOUT_S}`];
  const types = values.map(() => 's').join('');
  const deadline = deadlineIn();
  const result = runProgram(busctl, [...options, '--', 'call', ...target, method, types, ...values], {
    timeoutMs: Math.max(1, Math.ceil(deadline.remainingMs())),
  });
  if (result.exitCode !== 0) {
    const text = result.stderr.trim().replace(/^Call failed: /, '');
    throw new FirewalldError(CniCode.Internal, `firewalld: ${text === '' ? `${method} failed` : text}`);
  }
  return valuesIn(result.stdout);
}

/** Longer than any call's deadline, at which busctl is killed: so that a timeout is distinguished from a failed call. */
const BUSCTL_TIMEOUT_S = 60;

/** `{"type":"as","data":[["10.88.0.2/32"]]}`; nothing for a method that returns nothing. */
function valuesIn(stdout: string): readonly unknown[] {
  if (stdout.trim() === '') return [];
  try {
    const { data } = JSON.parse(stdout) as { readonly data?: unknown };
    return Array.isArray(data) ? data : [];
  } catch (cause) {
    throw new FirewalldError(CniCode.Internal, 'firewalld: busctl printed no JSON', {
      details: stdout.slice(0, 200),
      cause,
    });
  }
}
