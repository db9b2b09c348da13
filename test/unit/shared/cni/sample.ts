import * as assert from 'uvu/assert';
import type { Invocation, Plugin } from '../../../../shared/cni/plugin.ts';
import { runPlugin } from '../../../../shared/cni/protocol.ts';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { CNI_VERSIONS } from '../../../../shared/cni/versions.ts';

/** What one call did to the outside, and how it reached the plugin. */
export interface Seen {
  exitCode: number;
  out: string;
  err: string;
  calls: { verb: string; call: Invocation<unknown> }[];
  configured: number;
}

export const RESULT: CniResult = {
  interfaces: [{ name: 'eth0', sandbox: '/ns' }],
  ips: [{ interface: 0, address: '10.0.0.2/24' }],
  routes: [],
  dns: {},
};

/** All variables that any verb needs. */
export const FULL = { CNI_CONTAINERID: 'c1', CNI_NETNS: '/ns', CNI_IFNAME: 'eth0', CNI_PATH: '/a::/b' };

/** The protocol around a plugin that only writes down how it was called. With stdin undefined, reading it fails the test. */
export function run(
  environment: Record<string, string | undefined>,
  stdin: unknown,
  change: Partial<Plugin<unknown>> = {},
  own: (path: string) => boolean = () => false,
  added?: Readonly<Record<string, unknown>>,
): Seen {
  const seen: Seen = { exitCode: -1, out: '', err: '', calls: [], configured: 0 };
  const note = (verb: string) => (call: Invocation<unknown>) => void seen.calls.push({ verb, call });
  const plugin: Plugin<unknown> = {
    name: 'sample',
    supportedVersions: CNI_VERSIONS,
    configure: (raw) => {
      seen.configured += 1;
      return { settings: raw };
    },
    add: (call) => {
      note('add')(call);
      return RESULT;
    },
    del: note('del'),
    check: note('check'),
    gc: note('gc'),
    status: note('status'),
    ...change,
  };
  seen.exitCode = runPlugin(plugin, {
    environment,
    readStdin: () => {
      if (stdin === undefined) throw new Error('stdin must not be read');
      return typeof stdin === 'string' ? stdin : JSON.stringify(stdin);
    },
    isOwnNamespace: own,
    configurationOfAdd: () => added,
    writeOut: (text) => (seen.out += text),
    writeErr: (text) => (seen.err += text),
  });
  return seen;
}

/** The error document of a call that failed. */
export const error = (seen: Seen): Record<string, unknown> => {
  assert.is(seen.exitCode, 1);
  return JSON.parse(seen.out) as Record<string, unknown>;
};
export const network = (members: object = {}): object => ({
  cniVersion: '1.1.0',
  name: 'n',
  type: 'sample',
  ...members,
});
