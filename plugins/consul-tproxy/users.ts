import type { Findings, UidRange } from './request.ts';

/** 4294967295 is (uid_t)-1, "no user": the kernel refuses to match it. */
const MAX_UID = 4294967294;

/**
 * One uid, a range `0-100`, or a user's name, as ProxyUserID and ExcludeUIDs give them.
 * Names are looked up in the text of the host's /etc/passwd and nowhere else. A name service (LDAP, sssd) asked from inside the
 * allocation's namespace has no network yet and stalls for a minute; a number never asks anybody.
 * @param key what is being read, for the sentences
 * @param passwd reads the host's /etc/passwd; only called for names
 */
export function readUid(
  key: string,
  text: string,
  passwd: () => string,
  findings: Findings,
): UidRange | undefined {
  const numbers = /^(\d+)(?:-(\d+))?$/.exec(text);
  if (numbers === null) return readUserName(key, text, passwd, findings);
  const first = Number(numbers[1]);
  const last = Number(numbers[2] ?? numbers[1]);
  if (first > MAX_UID || last > MAX_UID) {
    findings.problem(`${key}: a user ID is at most ${MAX_UID}, got ${JSON.stringify(text)}`);
  } else if (first > last) {
    findings.problem(`${key}: a range runs from the lower to the higher ID, got ${JSON.stringify(text)}`);
  } else {
    return { first, last };
  }
  return undefined;
}

function readUserName(
  key: string,
  name: string,
  passwd: () => string,
  findings: Findings,
): UidRange | undefined {
  const uid = uidOf(name, passwd());
  if (uid === undefined) {
    findings.problem(
      `${key}: ${JSON.stringify(name)} is neither a user ID, a range such as 100-200, nor a user in the host's /etc/passwd ` +
        '(no other name service is asked); give the number',
    );
    return undefined;
  }
  return { first: uid, last: uid };
}

/** passwd(5): name:password:uid:gid:comment:home:shell, one user a line; the first of a repeated name counts. */
function uidOf(name: string, passwd: string): number | undefined {
  if (name === '') return undefined;
  for (const line of passwd.split('\n')) {
    const [user, , uid] = line.split(':');
    if (user === name && uid !== undefined && /^\d+$/.test(uid) && Number(uid) <= MAX_UID) return Number(uid);
  }
  return undefined;
}
