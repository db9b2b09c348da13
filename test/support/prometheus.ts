/**
 * Prometheus' text format 0.0.4 and the rules of naming that `promtool check metrics` applies, as far as this suite's metrics can break them.
 * @returns one line for each violation
 */
export function violations(text: string): string[] {
  const found: string[] = text.endsWith('\n') ? [] : ['the last line has no end'];
  const help = new Set<string>();
  const types = new Map<string, string>();
  const samples = new Set<string>();
  for (const line of text.split('\n').filter((one) => one !== '')) {
    const [, kind, name = '', rest = ''] = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line) ?? [];
    if (kind === 'HELP') help.add(name);
    else if (kind === 'TYPE') {
      if (types.has(name)) found.push(`${name} has two types`);
      types.set(name, rest);
      if ((rest === 'counter') !== name.endsWith('_total'))
        found.push(`${name} is a ${rest}: counters end with _total, and nothing else does`);
    } else {
      const sample = SAMPLE.exec(line);
      const family = sample?.[1]?.replace(/_(bucket|sum|count)$/, '');
      if (sample === null || family === undefined) found.push(`no sample: ${line}`);
      else if (!types.has(family) && !types.has(sample[1] ?? '')) found.push(`no type before: ${line}`);
      const key = line.replace(/ \S+$/, '');
      if (samples.has(key)) found.push(`twice: ${key}`);
      samples.add(key);
    }
  }
  for (const name of types.keys()) if (!help.has(name)) found.push(`${name} has no help`);
  return found;
}

const LABEL = '[a-zA-Z_]\\w*="(?:[^"\\\\\\n]|\\\\["\\\\n])*"';
const SAMPLE = new RegExp(
  `^([a-zA-Z_:][\\w:]*)(?:\\{${LABEL}(?:,${LABEL})*\\})? (?:[+-]?Inf|NaN|-?\\d+(?:\\.\\d+)?(?:e[+-]?\\d+)?)$`,
);
