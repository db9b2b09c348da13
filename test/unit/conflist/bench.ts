import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import type { Runtime } from '../../../conflist/runtime.ts';

/** One call of a plugin, as the plugin saw it. */
export interface Call {
  readonly plugin: string;
  readonly command: string;
  readonly id: string;
  readonly netns: string;
  readonly ifname: string;
  readonly args: string;
  readonly path: string;
  readonly inherited: string;
  readonly stdin: Record<string, unknown>;
}

const PLUGIN = `#!/bin/sh
here=\${0%/*}; name=\${0##*/}
printf '%s\\t%s\\t%s\\t%s\\t%s\\t%s\\t%s\\t%s\\t' "$name" "$CNI_COMMAND" "$CNI_CONTAINERID" "$CNI_NETNS" "$CNI_IFNAME" "$CNI_ARGS" "$CNI_PATH" "$INHERITED" >> $here/log
cat >> $here/log; echo >> $here/log
if [ -f $here/$name.stderr ]; then cat $here/$name.stderr >&2; fi
if [ -f $here/$name.$CNI_COMMAND.fail ]; then cat $here/$name.$CNI_COMMAND.fail; exit 1; fi
if [ "$CNI_COMMAND" = ADD ]; then cat $here/$name.result; fi
exit 0
`;

/** Three plugins, alpha, beta and gamma, that note each call and do what the files beside them say. */
export class Bench {
  readonly folder = mkdtempSync('/tmp/weft-runtime-');
  readonly warnings: string[] = [];
  readonly runtime: Runtime = {
    binDirs: ['/nowhere', this.folder],
    cacheDir: `${this.folder}/cache`,
    environment: { PATH: '/usr/bin:/bin', INHERITED: 'yes', CNI_ARGS: 'never=this' },
    warn: (line) => void this.warnings.push(line),
  };

  constructor() {
    for (const name of ['alpha', 'beta', 'gamma']) {
      writeFileSync(`${this.folder}/${name}`, PLUGIN, { mode: 0o755 });
      const address = `10.1.0.${name.length}/24`;
      this.file(`${name}.result`, {
        cniVersion: '0.4.0',
        interfaces: [{ name }],
        ips: [{ version: '4', interface: 0, address }],
        dns: {},
      });
    }
  }

  file(name: string, content: object | string): void {
    writeFileSync(`${this.folder}/${name}`, typeof content === 'string' ? content : JSON.stringify(content));
  }

  get calls(): Call[] {
    if (!existsSync(`${this.folder}/log`)) return [];
    const lines = readFileSync(`${this.folder}/log`, 'utf8').trim().split('\n');
    return lines.map((line) => {
      const [
        plugin = '',
        command = '',
        id = '',
        netns = '',
        ifname = '',
        args = '',
        path = '',
        inherited = '',
        stdin = '',
      ] = line.split('\t');
      return {
        plugin,
        command,
        id,
        netns,
        ifname,
        args,
        path,
        inherited,
        stdin: JSON.parse(stdin) as Record<string, unknown>,
      };
    });
  }

  forget(): void {
    this.file('log', '');
  }

  get cacheFile(): string {
    return `${this.folder}/cache/results/net-c1-eth0`;
  }
}
