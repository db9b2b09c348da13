import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';

/**
 * CycloneDX from package-lock.json, by npm itself: the packages that the executable is built from, Node among them
 * (node-linux-<arch>). Serial number and time are those of the release, so that two builds are equal.
 * @param {string} root @param {Date} date @returns {string} JSON
 */
export function sbom(root, date) {
  const options = [
    'sbom',
    '--sbom-format=cyclonedx',
    '--sbom-type=application',
    '--package-lock-only',
    '--omit=dev',
  ];
  const document = JSON.parse(
    execFileSync('npm', options, { cwd: root, encoding: 'utf8', maxBuffer: 64 * 2 ** 20 }),
  );
  document.metadata.timestamp = date.toISOString();
  delete document.serialNumber;
  const digits = createHash('sha256').update(JSON.stringify(document)).digest('hex');
  document.serialNumber = `urn:uuid:${digits.slice(0, 8)}-${digits.slice(8, 12)}-8${digits.slice(13, 16)}-8${digits.slice(17, 20)}-${digits.slice(20, 32)}`;
  return `${JSON.stringify(document, null, 2)}\n`;
}
