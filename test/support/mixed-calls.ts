import { dirname } from 'node:path';
import { callAgent } from './agent-client.ts';
import { startPluginProcess, type ProcessCall, type ProcessOutcome } from './plugin.ts';
import { binDir, type PluginName } from './executables.ts';

/** How a call reaches the plugin. */
export type Route = 'agent' | 'launcher' | 'executable';

/** The node agent's executable, if one runs on this host (own-host.sh). */
const AGENT = process.env['WEFT_TEST_AGENT'];
/** The directory of the plain executables. */
export const plainBin = AGENT === undefined ? binDir : dirname(AGENT);

/**
 * For many calls, where each must cost little: with an agent on this host, most are asked of it directly, one in 20 goes through the launcher,
 * and one in `plainEvery` is made by the plain executable, which costs as much processor time as 20 others. Without an agent, all are.
 */
export function routeOf(number: number, plainEvery = 100): Route {
  if (AGENT === undefined || number % plainEvery === 0) return 'executable';
  return number % 20 === 0 ? 'launcher' : 'agent';
}

/** One call by the route of its number. */
export async function startMixed(
  number: number,
  name: PluginName,
  call: ProcessCall,
  plainEvery?: number,
): Promise<ProcessOutcome> {
  const route = routeOf(number, plainEvery);
  if (route === 'agent') {
    const answer = await callAgent(name, call);
    if (answer !== 'declined') return answer;
  }
  return startPluginProcess(name, route === 'launcher' ? call : { ...call, bin: plainBin });
}
