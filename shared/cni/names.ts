import { CniCode, CniError } from './errors.ts';

/** Container ids and network names become file names and chain comments, so the specification allows few characters. */
const IDENTIFIER = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

/** IFNAMSIZ of linux/if.h is 16 bytes with the closing zero. */
const IFNAME_BYTES = 15;

/** Throws CniError 4; messages as the CNI library has them, because runtimes' tests compare them. */
export function checkContainerId(id: string): void {
  if (!IDENTIFIER.test(id)) {
    throw new CniError(CniCode.InvalidEnvironment, 'invalid characters in containerID', { details: id });
  }
}

/** Throws CniError 7. */
export function checkNetworkName(name: string): void {
  if (name === '') throw new CniError(CniCode.InvalidNetworkConfig, 'missing network name');
  if (!IDENTIFIER.test(name)) {
    throw new CniError(CniCode.InvalidNetworkConfig, 'invalid characters found in network name', {
      details: name,
    });
  }
}

/** Throws CniError 4. What the kernel's dev_valid_name refuses, refused before anything is touched. */
export function checkIfname(name: string): void {
  if (Buffer.byteLength(name) > IFNAME_BYTES) {
    throw new CniError(CniCode.InvalidEnvironment, 'interface name is too long', {
      details: 'interface name should be less than 16 characters',
    });
  }
  if (name === '.' || name === '..') {
    throw new CniError(CniCode.InvalidEnvironment, 'interface name is . or ..', { details: name });
  }
  if (/[/:\s\u0085]/u.test(name)) {
    throw new CniError(
      CniCode.InvalidEnvironment,
      'interface name contains / or : or whitespace characters',
      { details: name },
    );
  }
}
