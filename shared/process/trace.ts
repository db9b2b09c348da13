/**
 * What a call does, line by line on stderr: with WEFT_DEBUG=1 in the environment. Off, a trace point costs one comparison.
 * May be imported from everywhere.
 */
let sink: ((line: string) => void) | undefined;

/** To be called once per call: the executable is restored from a snapshot, which knows nothing of its environment. */
export function startTrace(
  environment: Readonly<Record<string, string | undefined>>,
  write: (line: string) => void,
): void {
  sink = environment['WEFT_DEBUG'] === '1' ? write : undefined;
}

/** @param describe the step that follows, as `what: details`; called only when tracing is on */
export function trace(describe: () => string): void {
  if (sink !== undefined) sink(`debug: ${describe()}\n`);
}
