/**
 * The words of a line of iptables-save, split the way iptables-restore splits them: at blanks, `"` opens and closes a
 * quotation, and inside of one a backslash takes the next character as it is.
 */
export function splitWords(line: string): string[] {
  if (!line.includes('"')) return line.split(' ').filter((word) => word !== '');
  const words: string[] = [];
  let word: string | undefined;
  let quoted = false;
  for (let at = 0; at < line.length; at++) {
    const character = line.charAt(at);
    if (character === '"') {
      quoted = !quoted;
      word ??= '';
    } else if (quoted && character === '\\') {
      at += 1;
      word = `${word ?? ''}${line.charAt(at)}`;
    } else if (!quoted && character === ' ') {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else {
      word = `${word ?? ''}${character}`;
    }
  }
  if (word !== undefined) words.push(word);
  return words;
}

/** Free text (a comment) as iptables-save prints it: bare when it is made of word characters, else quoted and escaped. */
export function savedText(text: string): string {
  return /^[\w-]+$/.test(text) ? text : quoted(text);
}

/** Any other word: bare unless iptables-restore would read it as something else. */
export function savedWord(word: string): string {
  return word === '' || /[\s"'\\]/.test(word) ? quoted(word) : word;
}

function quoted(text: string): string {
  return `"${text.replaceAll(/["'\\]/g, '\\$&')}"`;
}
