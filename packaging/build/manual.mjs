/** Manual pages: weft(8) from what the sub-commands print as help, weft.json(5) from docs/reference/configuration.md. */

/**
 * @typedef {object} SubCommand
 * @property {string} name
 * @property {string} summary
 * @property {string} help   what `weft NAME --help` prints
 */

/** @param {readonly SubCommand[]} commands @param {string} version @param {string} date @returns {string} roff */
export function weftPage(commands, version, date) {
  const list = commands.map(({ name, summary }) => `.TP\n.B ${escape(name)}\n${escape(summary)}`);
  const details = commands.map(
    ({ name, help }) => `.SS weft ${escape(name)}\n.nf\n${escape(help.trimEnd())}\n.fi`,
  );
  return [
    `.TH WEFT 8 "${date}" "Weft ${version}" "System administration"`,
    '.SH NAME',
    'weft \\- CNI plugins for HashiCorp Nomad: install, inspect and troubleshoot',
    '.SH SYNOPSIS',
    '.B weft\n.I sub-command\n[options]',
    '.SH DESCRIPTION',
    "The CNI plugins themselves (loopback, bridge, host\\-local, firewall, portmap, consul\\-tproxy) are executed by Nomad's client from /opt/cni/bin.",
    'Weft installs them there, and shows what they have done.',
    '.SH SUB-COMMANDS',
    ...list,
    '.SH OPTIONS',
    ...details,
    '.SH FILES',
    '.TP\n.I /etc/weft/weft.json\nsettings of this node, see\n.BR weft.json (5)',
    '.TP\n.I /opt/cni/bin\nthe plugins; .weft/install.json in it is the record of the installation',
    '.TP\n.I /run/weft/agent.sock\nthe node agent',
    '.SH SEE ALSO',
    '.BR weft.json (5),\n.BR nft (8),\n.BR iptables (8),\n.BR ip\\-netns (8)',
    '',
  ].join('\n');
}

/** @param {string} markdown @param {string} version @param {string} date @returns {string} roff */
export function configurationPage(markdown, version, date) {
  const [, ...lines] = markdown.split('\n');
  return [
    `.TH WEFT.JSON 5 "${date}" "Weft ${version}" "File formats"`,
    '.SH NAME',
    'weft.json \\- settings of a node for the CNI plugins of Weft',
    '.SH DESCRIPTION',
    ...blocks(lines).map(toRoff),
    '.SH SEE ALSO',
    '.BR weft (8)',
    '',
  ].join('\n');
}

/** Paragraphs, tables, headings, fenced code. @param {readonly string[]} lines @returns {string[][]} */
function blocks(lines) {
  /** @type {string[][]} */
  const found = [[]];
  let isCode = false;
  for (const line of lines) {
    if (line.startsWith('```')) isCode = !isCode;
    if (line === '' && !isCode) found.push([]);
    else found.at(-1)?.push(line);
  }
  return found.filter((block) => block.length > 0);
}

/** @param {readonly string[]} block */
function toRoff(block) {
  const [first = ''] = block;
  if (first.startsWith('#')) return `.SH ${escape(first.replace(/^#+ /, '').toUpperCase())}`;
  if (first.startsWith('```')) return `.PP\n.nf\n.RS\n${escape(block.slice(1, -1).join('\n'))}\n.RE\n.fi`;
  if (first.startsWith('|')) return table(block);
  return `.PP\n${inline(block.join('\n'))}`;
}

/** The first column is the key; the others are told as sentences. @param {readonly string[]} rows */
function table([head = '', , ...rows]) {
  const titles = cells(head);
  return rows
    .map(cells)
    .map(([key = '', ...values]) => {
      const text = values.map((value, index) => `${inline(titles[index + 1] ?? '')}: ${inline(value)}`);
      return `.TP\n.B ${inline(key)}\n${text.join('.\n.br\n')}`;
    })
    .join('\n');
}

/** @param {string} row */
function cells(row) {
  return row
    .split(/(?<!\\)\|/)
    .slice(1, -1)
    .map((cell) => cell.trim().replaceAll('\\|', '|'));
}

/** @param {string} text */
function inline(text) {
  return escape(text.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1').replaceAll(/[`*]/g, ''));
}

/** @param {string} text */
function escape(text) {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll(/^([.'])/gm, '\\&$1');
}
