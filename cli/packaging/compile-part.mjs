/**
 * usage: node compile-part.mjs <part.cjs> <part.cache>
 * Wraps a part as a function, in place, and stores V8's compiled code of it. To be run by the Node of the executable with its V8 flags:
 * for any other, V8 would reject the code.
 */
import { release } from './hold-still.ts';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename } from 'node:path';
import { Script } from 'node:vm';

const [source = '', cache = ''] = process.argv.slice(2);
const wrapped = `(function (exports, require, module) {${readFileSync(source, 'utf8')}\n})`;
writeFileSync(source, wrapped);
const script = new Script(wrapped, { filename: basename(source) });
const part = { exports: {} };
// Once through, so that what its evaluation needs is compiled too.
script.runInThisContext()(part.exports, createRequire(import.meta.url), part);
release();
writeFileSync(cache, script.createCachedData());
