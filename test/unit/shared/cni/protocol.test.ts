import { readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { CniError } from '../../../../shared/cni/errors.ts';
import type { Invocation, Plugin } from '../../../../shared/cni/plugin.ts';
import { runPlugin } from '../../../../shared/cni/protocol.ts';
import { SUITE_VERSION, CNI_VERSIONS } from '../../../../shared/cni/versions.ts';
import type { Configured } from '../../../../shared/config/decode.ts';
import { suite } from '../../../support/suite.ts';
import { error, FULL, network, RESULT, run, type Seen } from './sample.ts';

const test = suite('cni: protocol');

test("the version that the suite prints is the package's", () => {
  const { version } = JSON.parse(readFileSync(`${import.meta.dirname}/../../../../package.json`, 'utf8')) as {
    version: string;
  };
  assert.is(SUITE_VERSION, version);
});

test('no CNI_COMMAND: two lines on stderr, nothing else, stdin untouched', () => {
  for (const environment of [{}, { CNI_COMMAND: '' }, { CNI_CONTAINERID: '../x', CNI_IFNAME: 'a b' }]) {
    const { exitCode, out, err } = run(environment, undefined);
    assert.equal(
      { exitCode, out, err },
      {
        exitCode: 0,
        out: '',
        err: `CNI sample plugin v${SUITE_VERSION}\nCNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n`,
      },
    );
  }
});

test('VERSION needs nothing and reads nothing', () => {
  const { exitCode, out, err } = run({ CNI_COMMAND: 'VERSION', CNI_CONTAINERID: '../x' }, undefined);
  assert.equal([exitCode, err], [0, '']);
  assert.is(
    out,
    '{"cniVersion":"1.1.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}\n',
  );
});

test("ADD hands over all of the call and prints the result in the configuration's version", () => {
  const stdin = '{"cniVersion": "0.4.0",  "NAME": "n", "x": null}';
  const seen = run({ CNI_COMMAND: 'ADD', ...FULL, CNI_ARGS: 'A=b=c;;none' }, stdin);
  assert.is(seen.exitCode, 0);
  assert.is(seen.err, '');
  assert.equal(JSON.parse(seen.out), {
    cniVersion: '0.4.0',
    interfaces: [{ name: 'eth0', sandbox: '/ns' }],
    ips: [{ version: '4', interface: 0, address: '10.0.0.2/24' }],
    dns: {},
  });
  const [{ verb, call } = { verb: '', call: undefined }] = seen.calls;
  assert.is(verb, 'add');
  assert.equal(
    [call?.containerId, call?.netns, call?.ifname, call?.path, call?.network, call?.cniVersion, call?.stdin],
    ['c1', '/ns', 'eth0', ['/a', '/b'], 'n', '0.4.0', stdin],
  );
  assert.equal([...(call?.args ?? [])], [['A', 'b=c']]);
  assert.equal([call?.prevResult, call?.validAttachments], [undefined, undefined]);
});

test('unknown commands are refused after a good stdin, whatever they are called', () => {
  for (const command of ['FOO', 'add', 'ADD ', 'constructor', '__proto__', 'toString']) {
    assert.equal(error(run({ CNI_COMMAND: command }, network())), {
      code: 4,
      msg: `unknown CNI_COMMAND: ${command}`,
    });
  }
});

test("the plugin's own namespace is refused before any work, for ADD and DEL only", () => {
  for (const command of ['ADD', 'DEL']) {
    const seen = run({ CNI_COMMAND: command, ...FULL }, network(), {}, (path) => path === '/ns');
    const { code, msg, cniVersion } = error(seen);
    assert.equal(
      [code, msg, cniVersion],
      [8, "plugin's netns and netns from CNI_NETNS should not be the same", '1.1.0'],
    );
    assert.equal(seen.calls, []);
    for (const override of ['1', 'true', 'TRUE', 'tRuE']) {
      assert.is(
        run({ CNI_COMMAND: command, ...FULL, CNI_NETNS_OVERRIDE: override }, network(), {}, () => true)
          .exitCode,
        0,
      );
    }
    for (const override of ['0', 'yes', '', 'truee']) {
      assert.is(
        run({ CNI_COMMAND: command, ...FULL, CNI_NETNS_OVERRIDE: override }, network(), {}, () => true)
          .exitCode,
        1,
      );
    }
  }
  assert.is(run({ CNI_COMMAND: 'CHECK', ...FULL }, network(), {}, () => true).exitCode, 0);
  assert.is(run({ CNI_COMMAND: 'DEL', ...FULL, CNI_NETNS: '' }, network(), {}, () => true).exitCode, 0);
});

test("a namespace that cannot be looked at is the plugin's affair", () => {
  const seen = run({ CNI_COMMAND: 'ADD', ...FULL }, network(), {}, () => {
    throw new Error('ELOOP');
  });
  assert.is(seen.exitCode, 0);
});

test('the configuration is judged before the plugin works, for every verb', () => {
  for (const command of ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS']) {
    const refuse = (): never => {
      throw new CniError(7, 'invalid sample configuration: no');
    };
    const seen = run({ CNI_COMMAND: command, ...FULL }, network({ 'cni.dev/valid-attachments': [] }), {
      configure: refuse,
    });
    assert.equal(error(seen), { cniVersion: '1.1.0', code: 7, msg: 'invalid sample configuration: no' });
    assert.equal(seen.calls, []);
  }
});

test('errors carry code, msg, details and the version; other throws become 999 with their text', () => {
  const fail = (thing: unknown) => ({
    check: () => {
      throw thing;
    },
  });
  const check = (thing: unknown): Record<string, unknown> =>
    error(run({ CNI_COMMAND: 'CHECK', ...FULL }, network(), fail(thing)));
  assert.equal(check(new CniError(11, 'later', { details: 'd' })), {
    cniVersion: '1.1.0',
    code: 11,
    msg: 'later',
    details: 'd',
  });
  assert.equal(check(new CniError(107, 'own code')), { cniVersion: '1.1.0', code: 107, msg: 'own code' });
  assert.equal(check(new Error('EIO')), { cniVersion: '1.1.0', code: 999, msg: 'EIO' });
  assert.equal(check('text'), { cniVersion: '1.1.0', code: 999, msg: 'text' });
  const bug = check(new TypeError('x is not a function'));
  assert.is(bug['msg'], 'bug in the sample plugin: x is not a function');
  assert.match(String(bug['details']), 'protocol.test.ts');
});

test('an error is printed with four blanks of indent and no line end', () => {
  const { out } = run({ CNI_COMMAND: 'FOO' }, network());
  assert.is(out, '{\n    "code": 4,\n    "msg": "unknown CNI_COMMAND: FOO"\n}');
});

test('DEL never says "not found"', () => {
  const seen = run({ CNI_COMMAND: 'DEL', ...FULL }, network(), {
    del: () => {
      throw new CniError(999, 'lease not found', { details: 'Not Found at all' });
    },
  });
  assert.equal(error(seen), {
    cniVersion: '1.1.0',
    code: 999,
    msg: 'lease missing',
    details: 'missing at all',
  });
});

test('a result that the version cannot tell is undone', () => {
  const seen = run({ CNI_COMMAND: 'ADD', ...FULL }, network({ cniVersion: '0.2.0' }), {
    add: () => ({ ...RESULT, ips: [] }),
  });
  assert.is(error(seen)['msg'], 'cannot convert: no valid IP addresses');
  assert.equal(
    seen.calls.map(({ verb, call }) => [verb, call.command, call.containerId]),
    [['del', 'DEL', 'c1']],
  );
});

test("a line to the log is one line with the plugin's name", () => {
  const seen = run({ CNI_COMMAND: 'STATUS', ...FULL }, network(), {
    status: ({ warn }) => warn('one\n  two'),
  });
  assert.is(seen.err, 'sample: one two\n');
});

test('an ADD whose result cannot be written is undone', () => {
  const calls: string[] = [];
  const note = (call: Invocation<unknown>): void => void calls.push(`${call.command} ${call.containerId}`);
  const plugin = {
    name: 'sample',
    supportedVersions: CNI_VERSIONS,
    configure: (raw: unknown) => ({ settings: raw }),
    add: (call: Invocation<unknown>) => {
      note(call);
      return RESULT;
    },
    del: (call: Invocation<unknown>) => {
      note(call);
      assert.equal(call.prevResult, RESULT);
      throw new Error('busy');
    },
  } as unknown as Plugin<unknown>;
  let err = '';
  const exitCode = runPlugin(plugin, {
    environment: { CNI_COMMAND: 'ADD', ...FULL },
    readStdin: () => JSON.stringify(network()),
    isOwnNamespace: () => false,
    configurationOfAdd: () => undefined,
    writeOut: () => {
      throw new Error('ENOSPC');
    },
    writeErr: (text) => (err += text),
  });
  assert.equal([exitCode, calls], [1, ['ADD c1', 'DEL c1']]);
  assert.is(err, 'sample: while undoing ADD: busy\nsample: cannot report the result: ENOSPC\n');
});

test('a log that cannot be written changes nothing', () => {
  let out = '';
  const plugin = {
    name: 'sample',
    supportedVersions: CNI_VERSIONS,
    configure: (raw: unknown) => ({ settings: raw }),
    add: ({ warn }: Invocation<unknown>) => {
      warn('careful');
      return RESULT;
    },
  } as unknown as Plugin<unknown>;
  const exitCode = runPlugin(plugin, {
    environment: { CNI_COMMAND: 'ADD', ...FULL },
    readStdin: () => JSON.stringify(network()),
    isOwnNamespace: () => false,
    configurationOfAdd: () => undefined,
    writeOut: (text) => (out += text),
    writeErr: () => {
      throw new Error('EPIPE');
    },
  });
  assert.is(exitCode, 0);
  assert.match(out, '10.0.0.2/24');
});

test('an answer that cannot be written is a failure', () => {
  let err = '';
  const exitCode = runPlugin(
    { name: 'sample', supportedVersions: CNI_VERSIONS } as unknown as Plugin<unknown>,
    {
      environment: { CNI_COMMAND: 'VERSION' },
      readStdin: () => '',
      isOwnNamespace: () => false,
      configurationOfAdd: () => undefined,
      writeOut: () => {
        throw new Error('EPIPE');
      },
      writeErr: (text) => (err += text),
    },
  );
  assert.equal([exitCode, err], [1, 'sample: cannot report the result: EPIPE\n']);
});

test('problems of the configuration stop ADD and STATUS; DEL and GC get what is valid', () => {
  const configure = (): { problems: string[]; partial: object } => ({
    problems: Array.from({ length: 30 }, (_, at) => `"key${at}" is required`),
    partial: { name: 'x' },
  });
  for (const CNI_COMMAND of ['ADD', 'STATUS']) {
    const seen = run({ CNI_COMMAND, ...FULL }, network(), { configure });
    const { code, msg } = error(seen);
    assert.is(code, 7);
    assert.match(String(msg), 'invalid sample configuration: "key0" is required; ');
    assert.match(String(msg), '; and 18 more');
    assert.equal(seen.calls, []);
  }
  for (const CNI_COMMAND of ['DEL', 'GC']) {
    const seen = run({ CNI_COMMAND, ...FULL }, network({ 'cni.dev/valid-attachments': [] }), { configure });
    assert.is(seen.exitCode, 0);
    assert.equal(seen.calls[0]?.call.config, { name: 'x' });
  }
});

test('CHECK of an invalid configuration uses that of ADD; without one it warns', () => {
  const configure = (raw: Readonly<Record<string, unknown>>): Configured<unknown> =>
    raw['valid'] === true ? { settings: raw } : { problems: ['"key" is required'], partial: {} };
  const check = (added: Readonly<Record<string, unknown>>): Seen =>
    run({ CNI_COMMAND: 'CHECK', ...FULL }, network(), { configure }, undefined, added);
  const settings = { valid: true };
  const used = check(settings);
  assert.is(used.exitCode, 0);
  assert.equal(used.calls[0]?.call.config, settings);
  assert.is(
    used.err,
    'sample: invalid configuration: "key" is required; checked with the configuration of ADD\n',
  );
  const skipped = check({ valid: false });
  assert.equal([skipped.exitCode, skipped.calls], [0, []]);
  assert.match(
    skipped.err,
    '"key" is required; not checked, because no valid configuration of ADD is cached',
  );
});

test('a long error is cut to a screenful', () => {
  const del = (): never => {
    throw new CniError(999, 'x'.repeat(1_000_000), { details: 'y'.repeat(1_000_000) });
  };
  const { out } = run({ CNI_COMMAND: 'DEL', ...FULL }, network(), { del });
  assert.ok(out.length < 9000);
});

test.run();
