/**
 * Formatting is prettier's. This file enforces the layout of docs/ARCHITECTURE.md: which package may import which, which modules
 * are reserved for one package, and how long a file or a function may be.
 */
import { readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import tseslint from 'typescript-eslint';

/** Packages from the top down; a package imports only packages below it. */
const LAYERS = [
  'build',
  'cli',
  'examples',
  'agent',
  'conflist',
  'plugins',
  'shared/ipam',
  'shared/attachments',
  'shared/packetfilter',
  'shared/cni',
  'shared/config',
  'shared/process',
  'shared/kernel',
  'shared/net',
];
/** Packages beside each other that stay independent although the order above would allow the import. */
const INDEPENDENT = {
  'shared/ipam': ['shared/packetfilter'],
};
/** Every package throws CniError and traces its steps: these modules import nothing and may be imported from everywhere. */
const EVERYWHERE = { 'shared/cni': 'errors\\.ts$', 'shared/process': 'trace\\.ts$' };

/** npm packages and Node modules that only one package may import. */
const RESERVED = [
  {
    regex: '^(netlink|node:ffi|ffi)(/|$)',
    owner: 'shared/kernel',
    message: 'Only shared/kernel calls the kernel.',
  },
  {
    regex: '^(execa|node:child_process|child_process)(/|$)',
    owner: 'shared/process',
    message: 'Only shared/process starts programs.',
  },
  {
    regex: '/kernel/spawn\\.ts$',
    owner: 'shared/process',
    message: 'Only shared/process starts programs.',
  },
];
const TEST_ONLY = [
  {
    name: 'uvu',
    message:
      'Import suite() from test/support/suite.ts: it sets time limits and reports tests that never ran.',
  },
];

const restrict = (layer) => {
  const above = LAYERS.slice(0, LAYERS.indexOf(layer));
  const closed = [...new Set([...above, ...(INDEPENDENT[layer] ?? [])])];
  const patterns = closed.map((other) => ({
    regex: `^(\\.\\./)+${other.replace('shared/', '(shared/)?')}/${EVERYWHERE[other] === undefined ? '' : `(?!${EVERYWHERE[other]})`}`,
    message: `${layer} must not import ${other}: imports point down the list of packages (docs/ARCHITECTURE.md).`,
  }));
  for (const { regex, owner, message } of RESERVED) {
    if (layer !== owner && layer !== 'examples' && layer !== 'build') patterns.push({ regex, message });
  }
  return { 'no-restricted-imports': ['error', { paths: TEST_ONLY, patterns }] };
};

/** A plugin never imports another plugin. Every folder in plugins/ is one. */
const PLUGINS = readdirSync(resolve(import.meta.dirname, 'plugins'), { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => name);
const pluginRules = (plugin) => {
  const rules = restrict('plugins');
  const others = PLUGINS.filter((other) => other !== plugin);
  rules['no-restricted-imports'][1].patterns.push({
    regex: `^(\\.\\./)+(${others.join('|')})/`,
    message: 'A plugin must not import another plugin: code that two plugins use lives in shared/.',
  });
  return rules;
};

export default tseslint.config(
  { ignores: ['dist/**', 'node_modules/**'] },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { project: './tsconfig.json', tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      // Plugins, drivers and back ends are objects of functions that use no `this`.
      '@typescript-eslint/unbound-method': 'off',
      // The kernel's numbers are compared with the enums of the package netlink.
      '@typescript-eslint/no-unsafe-enum-comparison': 'off',
      '@typescript-eslint/no-unsafe-enum-assignment': 'off',
      // It does not see that a callback has changed a variable.
      '@typescript-eslint/no-unnecessary-condition': 'off',
      // `parse<T>(text): T` states what the caller expects.
      '@typescript-eslint/no-unnecessary-type-parameters': 'off',
    },
  },
  { files: ['**/*.mjs'], extends: [tseslint.configs.strict] },
  {
    files: ['**/*.{ts,mjs}'],
    rules: {
      'max-lines': ['error', { max: 400, skipBlankLines: false, skipComments: false }],
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
  ...LAYERS.map((layer) => ({ files: [`${layer}/**/*.ts`], rules: restrict(layer) })),
  ...PLUGINS.map((plugin) => ({ files: [`plugins/${plugin}/**/*.ts`], rules: pluginRules(plugin) })),
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
  {
    files: ['test/**/*.ts', 'build.mjs', 'build/**', 'scripts/**'],
    rules: { 'max-lines-per-function': 'off' },
  },
  { files: ['test/support/suite.ts'], rules: { 'no-restricted-imports': 'off' } },
);
