import manifest from '../package.json' with { type: 'json' };
import { writeAll } from '../shared/kernel/stdio.ts';
import { readOptions, runSubCommand } from '../shared/config/command-line.ts';

/**
 * The `weft` command: a sub-command's module is loaded only when it is called, so that `weft run` does not load the example's
 * certificates. Each takes the arguments after its name and resolves to the exit code.
 */
interface SubCommand {
  readonly name: string;
  readonly summary: string;
  readonly load: () => Promise<(argv: readonly string[]) => number | Promise<number>>;
  /** Internal: not listed by `weft help`. */
  readonly hidden?: true;
}

const SUB_COMMANDS: readonly SubCommand[] = [
  {
    name: 'countdash',
    summary: "run Consul's counting demo on this host: two groups, transparent proxy, a page on port 9002",
    load: async () => (await import('../examples/countdash/countdash.ts')).countdash,
  },
  {
    name: 'run',
    summary: 'run a network list as Nomad does: add, del, check, gc, status',
    load: async () => (await import('./run.ts')).run,
  },
  {
    name: 'agent',
    summary:
      'serve plugin calls from this warm process, keep their rules in order; set up by: weft install --agent',
    load: async () => (await import('../agent/agent.ts')).agent,
  },
  {
    name: 'install',
    summary: 'install this executable as CNI plugins, or roll the last installation back',
    load: async () => (await import('./install/command.ts')).install,
  },
  {
    name: 'uninstall',
    summary: 'remove the plugins and put the files from before Weft back',
    load: async () => (await import('./install/command.ts')).uninstall,
  },
  {
    name: 'repair',
    summary: 'restore the rules and kernel parameters that running containers need, once',
    load: async () => (await import('./repair.ts')).repairCommand,
  },
  {
    name: 'gc',
    summary: 'remove what containers that are gone have left: leases, rules, interfaces, files',
    load: async () => (await import('./gc.ts')).gc,
  },
  {
    name: 'status',
    summary: 'the node on one screen: agent, policy, networks, attachments and their health',
    load: async () => (await import('./status/status.ts')).status,
  },
  {
    name: 'leases',
    summary: 'list leased addresses with their containers, and how many are free',
    load: async () => (await import('./leases.ts')).leases,
  },
  {
    name: 'doctor',
    summary: 'check this node: kernel, firewall, plugins, bridge, Consul DNS, leaks',
    load: async () => (await import('./doctor/doctor.ts')).doctor,
  },
  {
    name: 'show',
    summary: 'draw the way of packets to and from an allocation, with rules and what is missing',
    load: async () => (await import('./show/show.ts')).show,
  },
  {
    name: 'render',
    summary: 'print the transparent-proxy rules for a configuration; changes nothing',
    load: async () => (await import('./render-tproxy.ts')).render,
  },
  {
    name: 'licenses',
    summary: 'print the licenses of the third-party software in this executable',
    load: async () => (await import('./licenses.ts')).licenses,
  },
  {
    name: 'version',
    summary: 'print the version of this executable',
    load: () => Promise.resolve(version),
  },
  {
    name: 'countdash-child',
    summary: 'one process of the example',
    load: async () => (await import('../examples/countdash/countdash.ts')).countdashChild,
    hidden: true,
  },
];

/** @returns 0 done, 1 failed (the reason is on stderr), 2 wrong usage */
export async function weft(argv: readonly string[]): Promise<number> {
  const [name, ...rest] = argv;
  if (name === undefined || name === 'help' || name === '--help' || name === '-h') return help(rest[0]);
  if (name === '--version') return print(VERSION);
  const command = SUB_COMMANDS.find((one) => one.name === name);
  if (command === undefined) {
    const known = [...shownCommands().map((one) => one.name), 'help'];
    return refuse(unknownName('sub-command', name, known, 'weft'));
  }
  return runSubCommand(command.name, async () => (await command.load())(rest));
}

async function help(about: string | undefined): Promise<number> {
  const command = SUB_COMMANDS.find(({ name, hidden }) => name === about && hidden === undefined);
  if (command !== undefined) return (await command.load())(['--help']);
  const { TOPICS } = await import('./help-topics.ts');
  const topic = TOPICS.find(({ name }) => name === about);
  if (topic !== undefined) return print(topic.text());
  const shown = shownCommands();
  const names = [...shown, ...TOPICS].map(({ name }) => name);
  if (about !== undefined && about !== 'help') return refuse(unknownName('topic', about, names, 'weft help'));
  const width = Math.max(...names.map((name) => name.length));
  const lines = shown.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`);
  const topics = TOPICS.map(({ name, summary }) => `    ${name.padEnd(width)}  ${summary}`);
  return print(
    `weft ${manifest.version}: CNI plugins for Nomad clients\n\nusage: weft <sub-command> [options]\n\n${lines.join('\n')}\n\nRun "weft help <sub-command>" for its options and exit status, "weft help <topic>" for:\n\n${topics.join('\n')}\n`,
  );
}

function shownCommands(): SubCommand[] {
  return SUB_COMMANDS.filter(({ hidden }) => hidden === undefined);
}

/** With the name that the fewest edits make of it, if that is likely meant. */
function unknownName(what: string, name: string, known: readonly string[], command: string): string {
  const [closest] = known
    .map((one) => ({ one, distance: isAlmost(name, one) ? 1 : editDistance(name, one) }))
    .filter(({ one, distance }) => distance <= Math.max(1, Math.floor(one.length / 3)))
    .sort((a, b) => a.distance - b.distance);
  const hint =
    closest === undefined ? 'run "weft help" for the list' : `did you mean "${command} ${closest.one}"?`;
  return `unknown ${what} "${name}"; ${hint}`;
}

/** The beginning of a name, or its letters in another order. */
function isAlmost(name: string, one: string): boolean {
  const letters = (text: string): string => Array.from(text).sort().join('');
  return one.startsWith(name) || letters(name) === letters(one);
}

/** Of Levenshtein: insertions, deletions and replacements that make one text of the other. */
function editDistance(from: string, to: string): number {
  let above = Array.from({ length: to.length + 1 }, (_, at) => at);
  for (const [row, letter] of Array.from(from).entries()) {
    const current = [row + 1];
    for (const [at, other] of Array.from(to).entries()) {
      const replaced = (above[at] ?? 0) + (letter === other ? 0 : 1);
      current.push(Math.min(replaced, (above[at + 1] ?? 0) + 1, (current[at] ?? 0) + 1));
    }
    above = current;
  }
  return above[to.length] ?? 0;
}

const VERSION = `weft ${manifest.version}\n`;

function version(argv: readonly string[]): number {
  const { values } = readOptions(argv, { help: { type: 'boolean', short: 'h' } });
  if (values.help === true)
    return print(
      'usage: weft version\n\nPrints the version of this executable.\n\nExit status: 0 printed; 2 wrong usage\n',
    );
  return print(VERSION);
}

function refuse(problem: string): number {
  writeAll(2, `weft: ${problem}\n`);
  return 2;
}

function print(text: string): number {
  writeAll(1, text);
  return 0;
}
