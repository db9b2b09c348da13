import { CniCode, CniError } from '../../../shared/cni/errors.ts';
import { runAll, withRollback } from '../../../shared/cni/undo.ts';
import { DBusError } from './dbus/connection.ts';
import { isErrno } from '../../../shared/kernel/errno.ts';
import type { FirewallBackend } from '../backend.ts';
import { Firewalld } from './firewalld.ts';
import { garbageAddresses } from '../garbage.ts';
import { ingressPolicy } from '../nftables/backend.ts';
import { hostsByFamily, type Subject } from '../plan.ts';

/**
 * The container's addresses as sources of a zone of firewalld. An ingress policy is nothing that zones know: it is enforced
 * by the drops of the nftables backend's table, which firewalld cannot overrule.
 */
export const firewalldBackend: FirewallBackend = {
  ready: () => needFirewalld(() => undefined),

  allow: (settings, subject, warn) => {
    needFirewalld((firewalld) =>
      withRollback(warn, (undo) => {
        for (const source of sourcesOf(subject)) {
          if (!put(firewalld, settings.zone, source)) continue;
          undo.push(`source ${source} of firewalld`, () => firewalld.removeSource(settings.zone, source));
        }
        ingressPolicy.enforce(settings, subject);
      }),
    );
  },

  forget: (departing, warn) =>
    withFirewalld(warn, (firewalld) =>
      runAll(
        sourcesOf(departing).map((source) => () => take(firewalld, departing.zone, source)),
        warn,
      ),
    ),

  missing: (settings, subject) => {
    const lost = needFirewalld((firewalld) =>
      sourcesOf(subject).find((source) => !firewalld.hasSource(settings.zone, source)),
    );
    if (lost !== undefined) return `source ${lost} is missing from zone ${settings.zone} of firewalld`;
    return ingressPolicy.missing(settings, subject);
  },

  /** Sources carry no comment: whose an address was is found out as for the rules of iptables. */
  collect: ({ network, valid, zone }, warn) =>
    withFirewalld(warn, (firewalld) => {
      const hosts = knownSources(firewalld, zone).filter((source) =>
        /^[\d.]+\/32$|^[\da-f:.]+\/128$/i.test(source),
      );
      const garbage = garbageAddresses(
        network,
        valid,
        hosts.map((host) => host.replace(/\/\d+$/, '')),
      );
      const doomed = hostsByFamily(garbage);
      runAll(
        [...doomed.ipv4, ...doomed.ipv6].map((source) => () => take(firewalld, zone, source)),
        warn,
      );
    }),
};

/** Whether firewalld is there to be used; a bus that does not answer counts as none. */
export function firewalldRuns(): boolean {
  try {
    using firewalld = Firewalld.connect();
    return firewalld !== undefined;
  } catch (thrown) {
    if (isTrouble(thrown)) return false;
    throw thrown;
  }
}

function sourcesOf({ addresses }: Pick<Subject, 'addresses'>): string[] {
  return [...addresses.ipv4, ...addresses.ipv6];
}

/** @returns whether it was added; false when it was there */
function put(firewalld: Firewalld, zone: string, source: string): boolean {
  if (isIn(firewalld, zone, source)) return false;
  try {
    firewalld.addSource(zone, source);
    return true;
  } catch (thrown) {
    // Somebody may have put it there since; if not, firewalld's own words are the best there are.
    if (thrown instanceof DBusError && isIn(firewalld, zone, source)) return false;
    throw thrown;
  }
}

/** @throws CniError when the source is in another zone: a source can be in one only */
function isIn(firewalld: Firewalld, zone: string, source: string): boolean {
  const current = firewalld.zoneOf(source);
  if (current === undefined || current === zone) return current === zone;
  throw new CniError(
    CniCode.Internal,
    `firewalld has ${source} in zone ${current} already (ZONE_CONFLICT), so it cannot be put into zone ${zone}`,
    {
      details: `firewall-cmd --zone=${current} --remove-source=${source}, or name that zone: "firewalldZone": "${current}"`,
    },
  );
}

/** Only from the zone that it was put into. */
function take(firewalld: Firewalld, zone: string, source: string): void {
  if (firewalld.zoneOf(source) !== zone) return;
  try {
    firewalld.removeSource(zone, source);
  } catch (thrown) {
    if (!(thrown instanceof DBusError) || firewalld.zoneOf(source) === zone) throw thrown;
  }
}

/** None of a zone that is not there. */
function knownSources(firewalld: Firewalld, zone: string): string[] {
  try {
    return firewalld.sources(zone);
  } catch (thrown) {
    if (thrown instanceof DBusError) return [];
    throw thrown;
  }
}

/** @throws CniError saying what is not there, or what went wrong in words of firewalld's or the bus' */
function needFirewalld<T>(work: (firewalld: Firewalld) => T): T {
  try {
    using firewalld = Firewalld.connect();
    if (firewalld !== undefined) return work(firewalld);
  } catch (thrown) {
    throw isTrouble(thrown) ? troubled(thrown) : thrown;
  }
  throw new CniError(
    CniCode.PluginNotAvailable,
    'firewalld does not run on this host, and the firewall plugin is to use it',
    {
      details:
        'start firewalld and the system bus, or choose another backend: "backend": "nftables" or "iptables"',
    },
  );
}

/** For what only takes away: without firewalld there is nothing, and with one that does not answer nothing can be done. */
function withFirewalld(warn: (line: string) => void, work: (firewalld: Firewalld) => void): void {
  try {
    using firewalld = Firewalld.connect();
    if (firewalld !== undefined) work(firewalld);
  } catch (thrown) {
    if (!isTrouble(thrown)) throw thrown;
    warn(`${troubled(thrown).message}; what it may have of this container stays until it is reloaded`);
  }
}

type Trouble = Error & { readonly code: string };

/** Errors of the bus, of firewalld or of the socket between. */
function isTrouble(thrown: unknown): thrown is Trouble {
  return thrown instanceof DBusError || thrown instanceof RangeError || isErrno(thrown, ...SOCKET_ERRORS);
}

const SOCKET_ERRORS = ['EACCES', 'EAGAIN', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'EPROTO'];
const PASSING = ['EAGAIN', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'org.freedesktop.DBus.Error.NoReply'];

function troubled(thrown: Trouble): CniError {
  const code = PASSING.includes(thrown.code) ? CniCode.TryAgainLater : CniCode.Internal;
  if (thrown.code !== 'ETIMEDOUT')
    return new CniError(code, `firewalld: ${thrown.message}`, { cause: thrown });
  const details = `find out what it does: firewall-cmd --state (${thrown.message})`;
  return new CniError(code, 'firewalld, or the system bus, did not answer in time', {
    details,
    cause: thrown,
  });
}
