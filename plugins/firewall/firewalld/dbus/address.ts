/**
 * Where the system bus listens: `$DBUS_SYSTEM_BUS_ADDRESS`, else where the specification puts it.
 * @returns the first address of the list that is a socket of this host; undefined when there is none in it
 */
export function systemBusSocket(
  environment: Readonly<Record<string, string | undefined>>,
): string | undefined {
  const given = environment['DBUS_SYSTEM_BUS_ADDRESS'] ?? '';
  if (given === '') return DEFAULT_SOCKET;
  for (const address of given.split(';')) {
    const socket = unixSocket(address);
    if (socket !== undefined) return socket;
  }
  return undefined;
}

/** D-Bus specification, "Well-known Message Bus Instances". */
const DEFAULT_SOCKET = '/var/run/dbus/system_bus_socket';

/** `unix:path=/some/where,guid=…` or `unix:abstract=name`; bytes that mean something there are written `%2c`. */
function unixSocket(address: string): string | undefined {
  if (!address.startsWith('unix:')) return undefined;
  const pairs = address
    .slice('unix:'.length)
    .split(',')
    .map((pair) => pair.split('=').map(unescaped));
  const values = new Map(pairs.map(([key = '', value = '']) => [key, value]));
  const abstract = values.get('abstract');
  return abstract === undefined ? values.get('path') : `\0${abstract}`;
}

function unescaped(text: string): string {
  return text.replaceAll(/%([\da-f]{2})/gi, (_, digits: string) => String.fromCharCode(parseInt(digits, 16)));
}
