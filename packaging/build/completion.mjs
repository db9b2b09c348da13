/** Shell completion of `weft`, from the sub-commands and the options in their help. */

/** @typedef {import('./manual.mjs').SubCommand} SubCommand */

/** @param {readonly SubCommand[]} commands @returns {string} */
export function bashCompletion(commands) {
  const cases = commands.map(({ name, help }) => `    ${name}) words='${optionsOf(help).join(' ')}' ;;`);
  return `# bash completion for weft
_weft() {
  local cur=\${COMP_WORDS[COMP_CWORD]} words
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '${commands.map(({ name }) => name).join(' ')} help' -- "$cur"))
    return
  fi
  case \${COMP_WORDS[1]} in
${cases.join('\n')}
    *) return ;;
  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
  else
    COMPREPLY=($(compgen -f -- "$cur"))
  fi
}
complete -o filenames -F _weft weft
`;
}

/** @param {readonly SubCommand[]} commands @returns {string} */
export function zshCompletion(commands) {
  const names = commands.map(({ name, summary }) => `    '${name}:${quote(summary)}'`);
  const cases = commands.map(
    ({ name, help }) => `    ${name}) compadd -- ${optionsOf(help).join(' ')}; _files ;;`,
  );
  return `#compdef weft
_weft() {
  local -a commands
  commands=(
${names.join('\n')}
  )
  if (( CURRENT == 2 )); then
    _describe 'sub-command' commands
    return
  fi
  case $words[2] in
${cases.join('\n')}
  esac
}
_weft "$@"
`;
}

/** @param {string} help @returns {string[]} */
export function optionsOf(help) {
  return [
    ...new Set([...help.matchAll(/(?<![\w-])--[a-z][a-z0-9-]*/g)].map(([option]) => option).concat('--help')),
  ].sort();
}

/** @param {string} text */
function quote(text) {
  return text.replaceAll("'", "'\\''").replaceAll(':', '\\:');
}
