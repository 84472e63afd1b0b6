// The first line of a script as the kernel reads it: an editor that writes a byte order mark or CRLF breaks what looks right.
import { closeSync, existsSync, openSync, readdirSync, readSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { quote } from '../../cli/shell.ts';
import { findNearest } from './spelling.ts';

/** What stops the kernel from running it, and the command that mends it. */
export interface FirstLineProblem {
  what: string;
  mend: string;
}

const MARK = '\xef\xbb\xbf';
const HEAD_BYTES = 256;

/** The first line, a character a byte, with its CR when it ends in CRLF. */
export function readFirstLine(path: string): string {
  const fd = openSync(path, 'r');
  try {
    const buffer = Buffer.alloc(HEAD_BYTES);
    return buffer.toString('latin1', 0, readSync(fd, buffer)).split('\n')[0] ?? '';
  } finally {
    closeSync(fd);
  }
}

/** What is wrong with a line that begins with `#!`, or would; undefined for any other, and for one that is right. */
export function findLineProblem(line: string, path: string): FirstLineProblem | undefined {
  const file = quote(path);
  if (line.startsWith(`${MARK}#!`))
    return { what: 'a byte order mark is before its #!', mend: `sed -i '1s/^\\xEF\\xBB\\xBF//' ${file}` };
  if (!line.startsWith('#!')) return undefined;
  if (line.endsWith('\r'))
    return {
      what: 'its lines end in CRLF, and no interpreter has a CR in its name',
      mend: `sed -i 's/\\r$//' ${file}`,
    };
  return undefined;
}

/** `/bin/sh` of `#!/bin/sh -e`; empty when none is named. */
export function findInterpreter(line: string): string {
  return /^#!\s*(\S+)/.exec(line)?.[1] ?? '';
}

/** A program beside which a misspelt one was meant; undefined when none is near. */
export function findMeantInterpreter(interpreter: string): string | undefined {
  const folder = dirname(interpreter);
  if (!existsSync(folder)) return undefined;
  const near = findNearest(
    basename(interpreter),
    readdirSync(folder).filter((name) => USUAL.test(name)),
  );
  return near === undefined ? undefined : `${folder}/${near}`.replace('//', '/');
}

const USUAL = /^(?:(?:ba|da|k|z|c|tc)?sh|awk|env|expect|node|perl|php|python[23]?|ruby|tclsh)$/;

/** A command that puts another interpreter into the first line and keeps its arguments. */
export function formatReplacement(path: string, interpreter: string): string {
  return `sed -i '1s|^#![[:space:]]*[^[:space:]]*|#!${interpreter}|' ${quote(path)}`;
}
