import { PLUGINS, type PluginEntry } from '../plugins/index.ts';
import { readAsset } from '../shared/assets.ts';

/** What `weft help` explains besides the sub-commands. */
export const TOPICS: readonly {
  readonly name: string;
  readonly summary: string;
  readonly text: () => string;
}[] = [
  { name: 'exit-status', summary: 'exit status of the sub-commands and of the plugins', text: exitStatus },
  { name: 'plugins', summary: 'the plugins of this executable, and how to call one', text: plugins },
  { name: 'weft.json', summary: 'settings of this node in /etc/weft/weft.json', text: nodeConfiguration },
];

function exitStatus(): string {
  return `Sub-commands of weft:

  0  success; nothing found
  1  a failure, which stderr explains, or something found: a failed attachment, a missing rule, a warning of "weft doctor"
  2  wrong usage, before anything was changed; errors that "weft doctor" found

Plugins, as CNI defines it: 0 and the result on stdout, or 1 and {"code", "msg", "details"} on stdout:

  1  incompatible cniVersion     5  I/O failure                   11   in use; try again later
  2  unsupported field           6  cannot decode the input       50   plugin not available (STATUS)
  3  unknown container           7  invalid configuration         51   limited connectivity (STATUS)
  4  invalid environment         8  invalid network namespace     999  any other failure
`;
}

function plugins(): string {
  const names = PLUGINS.map(({ name, aliases = [] }: PluginEntry) => `  ${[name, ...aliases].join(', ')}\n`);
  return `This executable runs as the plugin under whose name it is called:

${names.join('')}
Called without CNI_COMMAND, a plugin prints its version, as Nomad's fingerprint asks for it. "weft install" puts the plugins into
/opt/cni/bin; "weft run add --conflist FILE --id ID --netns NAME" calls those of a network list as Nomad does.
`;
}

/** From the page of the documentation, so that both say the same. */
function nodeConfiguration(): string {
  const rows = readAsset('docs/reference/configuration.md')
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) =>
      line
        .split(/(?<!\\)\|/)
        .slice(1, -1)
        .map(plain),
    );
  const keys = rows.map(([key = '', values = '', meaning = '', fallback = '']) =>
    [
      `  ${key}  ${values}`,
      ...wrapped(`${meaning.replace(/\.$/, '')}. Default: ${fallback}`, 100).map((line) => `      ${line}`),
      '',
    ].join('\n'),
  );
  return `/etc/weft/weft.json holds settings of this node that Nomad's network list cannot carry, as one JSON object. The file is optional; each
call of a plugin reads it anew. A mistake in it is an error at ADD that names it; "weft doctor" finds it before.

${keys.join('\n')}
A network's own configuration wins over the file. Example: { "mtu": "auto", "backend": "nftables" }
`;
}

/** A cell without Markdown. */
function plain(cell: string): string {
  return cell
    .trim()
    .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1')
    .replaceAll('`', '');
}

function wrapped(text: string, width: number): string[] {
  const lines = [''];
  for (const word of text.split(' ')) {
    const line = lines.at(-1) ?? '';
    if (line !== '' && line.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = line === '' ? word : `${line} ${word}`;
  }
  return lines;
}
