import { formatAddress, sameAddress, type IpAddress } from '../net/address.ts';
import { readArgs } from '../cni/environment.ts';
import { CniCode, CniError } from '../cni/errors.ts';
import type { IpamCall } from './ipam.ts';
import { rangeOf, type RangeSet } from './ranges.ts';
import { readAddresses } from './config.ts';

/**
 * Which address each range set is asked for: the first requested one that lies in it. Requests come from CNI_ARGS (`IP`,
 * several separated by commas), args.cni.ips and runtimeConfig.ips, in this order; all of them must be served.
 * @returns one entry per set, undefined where any address will do
 * @throws CniError 7 for what is no address, 999 when a request fits no set that is still without one
 */
export function requestedPerSet({
  config,
  environment,
}: Pick<IpamCall, 'config' | 'environment'>): (IpAddress | undefined)[] {
  const problems: string[] = [];
  const fromArgs = readArgs(environment['CNI_ARGS'], ['IP']).get('IP') ?? '';
  const texts = fromArgs.split(',').filter((text) => text !== '');
  const requests = distinct([...readAddresses(texts, problems), ...config.requested]);
  if (problems.length > 0) {
    throw new CniError(CniCode.InvalidEnvironment, `${problems.join('; ')} (IP in CNI_ARGS)`);
  }
  const perSet = config.rangeSets.map((set) => takeFirst(requests, set));
  if (requests.length > 0) throw notServed(requests, config.rangeSets);
  return perSet;
}

function takeFirst(requests: IpAddress[], set: RangeSet): IpAddress | undefined {
  const at = requests.findIndex((address) => rangeOf(set, address) !== undefined);
  return at < 0 ? undefined : requests.splice(at, 1)[0];
}

function distinct(addresses: readonly IpAddress[]): IpAddress[] {
  return addresses.filter(
    (address, at) => addresses.findIndex((other) => sameAddress(other, address)) === at,
  );
}

function notServed(left: readonly IpAddress[], sets: readonly RangeSet[]): CniError {
  const listed = left.map(formatAddress).join(', ');
  const inSome = left.every((address) => sets.some((set) => rangeOf(set, address) !== undefined));
  return new CniError(CniCode.Internal, `failed to allocate all requested IPs: ${listed}`, {
    details: inSome
      ? 'each range set gives one address: two requests fall into the same set'
      : 'requested addresses must lie between rangeStart and rangeEnd of a range of this network',
  });
}
