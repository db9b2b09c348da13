/** Built-in modules of Node that plugins load after the start; the compiled code of all others is cut out of the snapshot. */

/** What load-part.cjs needs, which evaluates the parts outside of the snapshot. */
const LATE_PARTS = ['sea', 'vm'];

/** What execa needs, which starts the few programs that plugins cannot do without: iptables for words of an operator's, foreign IPAM plugins. */
const EXECA = [
  'child_process',
  'dgram',
  'fs/promises',
  'internal/child_process',
  'internal/dgram',
  'internal/fs/dir',
  'internal/fs/promises',
  'internal/fs/recursive_watch',
  'internal/fs/streams',
  'internal/fs/sync_write_stream',
  'internal/fs/watchers',
  'internal/perf/observe',
  'internal/perf/performance_entry',
  'internal/readline/callbacks',
  'internal/readline/interface',
  'internal/readline/utils',
  'internal/repl/history',
  'internal/socket_list',
  'internal/tty',
  'net',
  'os',
  'path/win32',
  'process',
  'timers/promises',
  'tty',
];

export const LOADED_AT_RUN_TIME = [...LATE_PARTS, ...EXECA];
