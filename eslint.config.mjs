/**
 * Style is prettier's; this file holds the lines of the house (docs/ARCHITECTURE.md): which room may import which,
 * who may touch dangerous modules, and how long a file or a function may grow.
 */
import tseslint from 'typescript-eslint';

/** Rooms from the top of the house to its ground; a room imports only rooms below it. */
const ROOMS = [
  'cli',
  'conflist',
  'plugins',
  'shared/attachments',
  'shared/ipam',
  'shared/packetfilter',
  'shared/dns',
  'shared/config',
  'shared/dbus',
  'shared/kernel',
  'shared/process',
  'shared/cni',
];
/** Neighbours on one floor that do not know each other, and the doors that stay shut besides the order above. */
const SHUT = {
  'shared/kernel': ['shared/process'],
  'shared/packetfilter': ['shared/dns', 'shared/ipam'],
  'shared/ipam': ['shared/packetfilter', 'shared/dns'],
};
/** The one way up: delegation runs another vendor's program. */
const WAY_UP = { 'shared/cni/delegate.ts': ['shared/process'] };

const KERNEL_ONLY = '^(netlink|node:ffi|ffi)(/|$)';
const PROCESS_ONLY = '^(execa|node:child_process|child_process)(/|$)';
const DBUS_ONLY = '^dbus-native(/|$)';
const TEST_ONLY = [
  {
    name: 'uvu',
    message: 'Tests take suite() from test/support/suite.ts: it has time limits and cannot be forgotten.',
  },
];

const restrict = (room, extra = []) => {
  const above = ROOMS.slice(0, ROOMS.indexOf(room));
  const closed = [...new Set([...above, ...(SHUT[room] ?? [])])].filter((other) => !extra.includes(other));
  const patterns = closed.map((other) => ({
    regex: `^(\\.\\./)+${other.replace('shared/', '(shared/)?')}/`,
    message: `${room} does not know ${other}: imports point down the house (docs/ARCHITECTURE.md).`,
  }));
  if (room !== 'shared/kernel')
    patterns.push({ regex: KERNEL_ONLY, message: 'Only shared/kernel talks to the kernel.' });
  if (room !== 'shared/process' && room !== 'cli') {
    patterns.push({ regex: PROCESS_ONLY, message: 'Only shared/process starts programs.' });
  }
  if (room !== 'shared/dbus') patterns.push({ regex: DBUS_ONLY, message: 'Only shared/dbus speaks D-Bus.' });
  return { 'no-restricted-imports': ['error', { paths: TEST_ONLY, patterns }] };
};

/** A plugin never imports another plugin. */
const PLUGINS = ['loopback', 'bridge', 'host-local', 'firewall', 'portmap', 'consul-tproxy'];
const pluginRules = (plugin) => {
  const rules = restrict('plugins');
  const others = PLUGINS.filter((other) => other !== plugin);
  rules['no-restricted-imports'][1].patterns.push({
    regex: `^\\.\\./(${others.join('|')})/`,
    message: 'A plugin does not know another plugin: what two need lives in shared/.',
  });
  return rules;
};

export default tseslint.config(
  { ignores: ['dist/**', 'node_modules/**'] },
  ...tseslint.configs.strict,
  {
    files: ['**/*.{ts,mjs}'],
    rules: {
      'max-lines': ['error', { max: 300, skipBlankLines: false, skipComments: false }],
      'max-lines-per-function': ['error', { max: 60, skipBlankLines: true, skipComments: true, IIFEs: true }],
      'no-console': 'off',
      eqeqeq: 'error',
      'no-var': 'error',
      'prefer-const': 'error',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-invalid-void-type': 'off',
    },
  },
  ...ROOMS.map((room) => ({ files: [`${room}/**/*.ts`], rules: restrict(room) })),
  ...PLUGINS.map((plugin) => ({ files: [`plugins/${plugin}/**/*.ts`], rules: pluginRules(plugin) })),
  ...Object.entries(WAY_UP).map(([file, extra]) => ({
    files: [file],
    rules: restrict(
      ROOMS.find((room) => file.startsWith(`${room}/`)),
      extra,
    ),
  })),
  {
    files: ['plugins/**/*.ts', 'shared/**/*.ts'],
    rules: {
      'no-console': ['error'],
      'no-restricted-globals': [
        'error',
        {
          name: 'performance',
          message: 'Loads eleven built-ins: several ms of every start. Use process.hrtime.',
        },
      ],
    },
  },
  { files: ['test/**/*.ts', 'build.mjs', 'cli/packaging/**'], rules: { 'max-lines-per-function': 'off' } },
  { files: ['test/support/suite.ts'], rules: { 'no-restricted-imports': 'off' } },
);
