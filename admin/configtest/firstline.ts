// The first line of a script as the kernel reads it. A byte order mark or CRLF, as some editors
// write them, breaks a line that looks right.
import { closeSync, existsSync, openSync, readdirSync, readSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { quote } from '../../cli/shell.ts';
import { findNearest } from './spelling.ts';

/** Why the kernel cannot run the script, and the command that repairs it. */
export interface FirstLineProblem {
  what: string;
  mend: string;
}

const MARK = '\xef\xbb\xbf';
const HEAD_BYTES = 256;

/** The first line, one character for each byte, with its CR when it ends in CRLF. */
export function readFirstLine(path: string): string {
  const fd = openSync(path, 'r');
  try {
    const buffer = Buffer.alloc(HEAD_BYTES);
    return buffer.toString('latin1', 0, readSync(fd, buffer)).split('\n')[0] ?? '';
  } finally {
    closeSync(fd);
  }
}

/**
 * The problem with a line that begins with `#!`, or was meant to; undefined for any other line, and
 * for a correct one.
 */
export function findLineProblem(line: string, path: string): FirstLineProblem | undefined {
  const file = quote(path);
  if (line.startsWith(`${MARK}#!`))
    return { what: 'a byte order mark precedes its #!', mend: `sed -i '1s/^\\xEF\\xBB\\xBF//' ${file}` };
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

/** The existing interpreter that a misspelt one probably means; undefined when none is similar. */
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

/** A command that replaces the interpreter in the first line and keeps its arguments. */
export function formatReplacement(path: string, interpreter: string): string {
  return `sed -i '1s|^#![[:space:]]*[^[:space:]]*|#!${interpreter}|' ${quote(path)}`;
}
