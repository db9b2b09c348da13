import type { Attachment } from '../../conflist/attachment.ts';
import type { CniResult } from '../../shared/cni/results.ts';
import type { Lines } from './state.ts';
import type { ListName } from './world.ts';

/** One container as the model sees it: its names and numbers, and what the last successful ADD reported. */
export interface Container {
  readonly id: string;
  readonly list: ListName;
  readonly attachment: Attachment;
  /** Published on the host, for tcp and udp. */
  readonly ports: readonly number[];
  /** Undefined before the first ADD has succeeded. */
  result: CniResult | undefined;
  /** The namespace was deleted without DEL: the interface is gone with it, everything else remains until DEL or GC. */
  isLost: boolean;
}

export function addressesOf(result: CniResult): string[] {
  return result.ips.map(({ address }) => address.replace(/\/.*/, ''));
}

/** The interface of the pair that stays on the host. */
export function hostInterface(result: CniResult): string {
  return (
    result.interfaces.find(({ name, sandbox }) => sandbox === undefined && name.startsWith('veth'))?.name ??
    ''
  );
}

/** Hashes of a container's names, in names of chains and in comments. */
const HASHED = /(?<=\bCNI-(?:DN-|SN-)?)[0-9a-f]{10,}|\b[0-9a-f]{16,}\b/g;

/** A container's lines with placeholders for everything that differs between two containers of the same list. */
export function templateOf(lines: Lines, container: Container): string[] {
  const values = placeholders(container);
  return lines
    .map((line) =>
      values.reduce((text, [name, value]) => replaceWord(text, value, name), withoutHashes(line)),
    )
    .sort();
}

export function instantiate(template: Lines, container: Container): string[] {
  return template.map((line) =>
    placeholders(container).reduce((text, [name, value]) => text.replaceAll(name, value), line),
  );
}

export function withoutHashes(line: string): string {
  return line.replaceAll(HASHED, '#');
}

function placeholders({ id, ports, result }: Container): [name: string, value: string][] {
  if (result === undefined) throw new Error(`${id} was never added`);
  return [
    ['{id}', id],
    ['{veth}', hostInterface(result)],
    ...addressesOf(result).map((address, at): [string, string] => [`{ip${at}}`, address]),
    ...ports.map((port, at): [string, string] => [`{port${at}}`, String(port)]),
  ];
}

/** 172.26.64.2 must not match in 172.26.64.21, and may in 172.26.64.2:80. */
function replaceWord(text: string, value: string, name: string): string {
  const escaped = value.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const joint = value.includes(':') ? ':' : '';
  return text.replaceAll(new RegExp(`(?<![\\w.${joint}])${escaped}(?![\\w${joint}]|\\.\\d)`, 'g'), name);
}
