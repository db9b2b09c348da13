import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { fileNameOf, type Attachment } from '../../shared/cni/call-marks.ts';
import { attempt, readRegularFile } from '../../shared/kernel/files.ts';

/**
 * The addresses that a container's rules are about, kept for its DEL. When a runtime gives up on an ADD and calls DEL while the ADD still runs,
 * no lease, result or interface may have the address any more, and rules of iptables name nothing else.
 *
 *     /run/weft/firewall-<hash>    "<network> <container id> <interface name> <address> ..."
 *
 * Rules do not survive a reboot, nor do these files. Where one cannot be written or read, DEL has its other sources.
 */
const FOLDER = '/run/weft';
const PREFIX = 'firewall-';

/** Replaces what is noted for the attachment. @param addresses without prefix length; none removes the file */
export function noteAddresses(attachment: Attachment, addresses: readonly string[]): void {
  attempt(() => {
    const file = fileOf(attachment);
    if (addresses.length === 0) {
      rmSync(file, { force: true });
      return;
    }
    const { network, containerId, ifname } = attachment;
    writeFileSync(file, [network, containerId, ifname, ...addresses].join(' '), { mode: 0o600 });
  });
}

/** Without prefix length. */
export function notedAddresses(attachment: Attachment): string[] {
  return read(fileOf(attachment))?.addresses ?? [];
}

/** The attachments of a network for which addresses are noted. */
export function notedAttachments(network: string): Attachment[] {
  const names = attempt(() => readdirSync(FOLDER)) ?? [];
  return names.flatMap((name) => {
    const noted = name.startsWith(PREFIX) ? read(`${FOLDER}/${name}`) : undefined;
    return noted?.attachment.network === network ? [noted.attachment] : [];
  });
}

function read(file: string): { attachment: Attachment; addresses: string[] } | undefined {
  const text = attempt(() => readRegularFile(file, { followLinks: false }));
  if (text === undefined) return undefined;
  const [network = '', containerId = '', ifname = '', ...addresses] = text.split(' ');
  return { attachment: { network, containerId, ifname }, addresses };
}

function fileOf(attachment: Attachment): string {
  return `${FOLDER}/${PREFIX}${fileNameOf(attachment)}`;
}
