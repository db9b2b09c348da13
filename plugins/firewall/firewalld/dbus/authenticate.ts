import type { Deadline } from '../../../../shared/kernel/deadline.ts';
import { KernelError } from '../../../../shared/kernel/errno.ts';
import type { UnixSocket } from '../../../../shared/kernel/unix-socket.ts';

/**
 * What stands before the first message (D-Bus specification, "Authentication Protocol"): a NUL, then lines. EXTERNAL says
 * who we are, and the bus asks the kernel whether that is true.
 * ```
 * C: \0 AUTH EXTERNAL 30        hex of the user id in decimal digits
 * S: OK <guid>                  or REJECTED <mechanisms>
 * C: BEGIN
 * ```
 * @throws KernelError EACCES when the bus refuses this user
 */
export function authenticate(socket: UnixSocket, deadline: Deadline): void {
  const identity = Buffer.from(String(process.geteuid?.() ?? 0)).toString('hex');
  socket.write(Buffer.from(`\0AUTH EXTERNAL ${identity}\r\n`), deadline);
  const answer = readLine(socket, deadline);
  if (!answer.startsWith('OK ')) throw new KernelError('AUTH EXTERNAL', EACCES, { detail: answer });
  socket.write(Buffer.from('BEGIN\r\n'), deadline);
}

const EACCES = 13;
const EPROTO = 71;
const LONGEST_LINE = 16 * 1024;

/** The bus sends nothing behind its answer until BEGIN, so whatever has come is the line. */
function readLine(socket: UnixSocket, deadline: Deadline): string {
  let line = '';
  while (!line.endsWith('\r\n')) {
    line += socket.read(deadline).toString('latin1');
    if (line.length > LONGEST_LINE)
      throw new KernelError('AUTH EXTERNAL', EPROTO, { detail: 'endless answer' });
  }
  return line.trimEnd();
}
