/**
 * usage: node crash-child.ts <dataDir> <ADD|DEL|GC> <container id> <n>
 * Makes the call, and dies by SIGKILL in place of the n-th of its calls that change files. Ends with 0 when it made fewer.
 */
import { ipamAdd, ipamDel, ipamGc } from '../../../../shared/ipam/ipam.ts';
import { callOn } from './calls.ts';
import { watchingFs } from './fs-calls.ts';

const [dataDir = '', verb = '', id = '', deadAt = ''] = process.argv.slice(2);
const ipam = { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: 'fd00::/64' }]] };
const valid = Array.from({ length: 40 }, (_, at) => ({ containerID: `base${at + 5}`, ifname: 'eth0' }));
const run = { ADD: ipamAdd, DEL: ipamDel, GC: ipamGc }[verb];
if (run === undefined) throw new Error(`no such verb: ${verb}`);

/** Between two changes every moment is the same to those who come after. */
const CHANGES = /^(mkdir|write|ftruncate|fsync|link|rename|rm|unlink|utimes)Sync$/;
const creates = (flags: unknown): boolean =>
  typeof flags === 'number' ? (flags & 0o100) !== 0 : /[wa]/.test(String(flags));

const call = callOn(dataDir, { id, ipam, valid });
let made = 0;
watchingFs(
  (name, [, flags]) => {
    if (!CHANGES.test(name) && !(name === 'openSync' && creates(flags))) return;
    made += 1;
    if (made === Number(deadAt)) process.kill(process.pid, 'SIGKILL');
  },
  () => run(call),
);
