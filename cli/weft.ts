import manifest from '../package.json' with { type: 'json' };
import { writeAll } from '../shared/kernel/stdio.ts';
import { runSubCommand } from '../shared/config/command-line.ts';

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
    summary: 'serve plugin calls from this warm process, for the launchers in dist/agent',
    load: async () => (await import('../agent/agent.ts')).agent,
  },
  {
    name: 'repair',
    summary: 'restore the rules and kernel parameters that running containers need, once',
    load: async () => (await import('./repair.ts')).repairCommand,
