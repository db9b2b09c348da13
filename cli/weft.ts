import manifest from '../package.json' with { type: 'json' };
import { toCniError } from '../shared/cni/errors.ts';
import { writeAll } from '../shared/kernel/stdio.ts';
import { UsageError } from '../shared/config/usage.ts';

/**
 * The `weft` command: a sub-command's module is loaded only when it is called, so that `weft run` does not pay for the example's
 * certificates. Each takes what follows its name and resolves to the exit code.
 */
interface SubCommand {
  readonly name: string;
  readonly summary: string;
  readonly load: () => Promise<(argv: readonly string[]) => number | Promise<number>>;
  /** Not for people: left out of the help. */
  readonly hidden?: true;
}

const SUB_COMMANDS: readonly SubCommand[] = [
  {
    name: 'countdash',
    summary: "Consul's counting example on this host: two groups, transparent proxy, a page on port 9002",
    load: async () => (await import('../examples/countdash/countdash.ts')).countdash,
  },
  {
    name: 'run',
    summary: 'run a network list: add, del, check, gc, status, as Nomad does',
    load: async () => (await import('./run.ts')).run,
  },
  {
    name: 'leases',
    summary: 'list the addresses given out, whose they are, and whether their network still exists',
    load: async () => (await import('./leases/leases.ts')).leases,
  },
  {
    name: 'show',
    summary: 'print the transparent-proxy rules in force in a namespace, and what they do to its traffic',
    load: async () => (await import('./show.ts')).show,
  },
  {
    name: 'render',
    summary: 'print the transparent-proxy rules for a configuration, without touching anything',
    load: async () => (await import('./render.ts')).render,
  },
  {
    name: 'countdash-child',
    summary: 'one process of the example',
    load: async () => (await import('../examples/countdash/child.ts')).countdashChild,
    hidden: true,
  },
];

/** @returns 0 done, 1 failed (the reason is on stderr), 2 wrong usage */
export async function weft(argv: readonly string[]): Promise<number> {
  const [name, ...rest] = argv;
  if (name === undefined || name === 'help' || name === '--help' || name === '-h') return help(rest[0]);
  if (name === 'version' || name === '--version') return print(`weft ${manifest.version}\n`);
  const command = SUB_COMMANDS.find((one) => one.name === name);
  if (command === undefined) return refuse(`there is no sub-command "${name}"`);
  try {
    return await (
      await command.load()
    )(rest);
  } catch (thrown) {
    if (thrown instanceof UsageError) return refuse(`${thrown.message} (see: weft ${name} --help)`);
    const { message, details } = toCniError(thrown);
    writeAll(2, `weft ${name}: ${message}${details === undefined || details === '' ? '' : `; ${details}`}\n`);
    return 1;
  }
}

async function help(about: string | undefined): Promise<number> {
  const command = SUB_COMMANDS.find(({ name, hidden }) => name === about && hidden === undefined);
  if (command !== undefined) return (await command.load())(['--help']);
  if (about !== undefined) return refuse(`there is no sub-command "${about}"`);
  const shown = SUB_COMMANDS.filter(({ hidden }) => hidden === undefined);
  const width = Math.max(...shown.map(({ name }) => name.length));
  const lines = shown.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`);
  return print(
    `weft ${manifest.version}: CNI plugins for Nomad clients\n\nusage: weft <sub-command> [options]\n\n${lines.join('\n')}\n\nweft <sub-command> --help tells the options.\n`,
  );
}

function refuse(problem: string): number {
  writeAll(2, `weft: ${problem}\n`);
  return 2;
}

function print(text: string): number {
  writeAll(1, text);
  return 0;
}
