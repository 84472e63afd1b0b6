// Arguments and environment variables that are not UTF-8. Node replaces invalid bytes by U+FFFD and
// passes the replacements on to the programs that it starts. Where the kernel shows the original
// bytes (/proc), such a program is started through the shell, which restores them.
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { decodeUtf8 } from './bytes.ts';
import { Failure } from './failure.ts';
import { findBatchObstacle, findNameObstacle, isBatch, type ShellCommand } from './windows.ts';

/** A program to start: a file, its arguments, and the environment. */
export interface Command {
  file: string;
  args: string[];
  env: NodeJS.ProcessEnv;
  /** Additional options for spawn. */
  options?: ShellCommand['options'];
}

const REPLACED = '\ufffd';

/**
 * The bytes of our last arguments as the kernel has them; undefined for each argument that Node
 * read correctly.
 */
export function findExactArguments(args: readonly string[]): (string | undefined)[] {
  if (!args.some((arg) => arg.includes(REPLACED))) return args.map(() => undefined);
  const all = readList('/proc/self/cmdline');
  const own = all.slice(all.length - args.length);
  return args.map((arg, index) => {
    const bytes = own[index] ?? '';
    return arg.includes(REPLACED) && decodeUtf8(bytes) === undefined ? bytes : undefined;
  });
}

/**
 * Checks that the program at `path`, which need not exist yet, will get its arguments unchanged.
 * Throws Failure `usage`.
 */
export function checkArguments(path: string, args: readonly string[]): void {
  if (process.platform === 'win32') {
    checkForWindows(path, args);
    return;
  }
  const index = args.findIndex((arg) => arg.includes(REPLACED));
  if (index < 0 || readList('/proc/self/cmdline').length > args.length) return;
  throw new Failure(
    'usage',
    `argument ${index + 1} of the program must be UTF-8`,
    'let the program find the argument itself',
  );
}

/**
 * Checks arguments for Windows, which passes them in UTF-16. Arguments that cmd.exe cannot take are
 * detected before anything is fetched.
 */
function checkForWindows(path: string, args: readonly string[]): void {
  const obstacle = findNameObstacle(basename(path)) ?? (isBatch(path) ? findBatchObstacle(path, args) : undefined);
  if (obstacle) throw new Failure('usage', obstacle.message, obstacle.hint);
}

/**
 * Variables whose values Node did not read correctly. A variable whose name no shell could set
 * stays as Node read it.
 */
function findExactVariables(env: NodeJS.ProcessEnv): [name: string, bytes: string][] {
  if (!Object.values(env).some((value) => value?.includes(REPLACED))) return [];
  return readList('/proc/self/environ').flatMap((entry): [string, string][] => {
    const [, name = '', bytes = ''] = /^([A-Za-z_]\w*)=(.*)$/s.exec(entry) ?? [];
    return env[name]?.includes(REPLACED) && decodeUtf8(bytes) === undefined ? [[name, bytes]] : [];
  });
}

/**
 * Changes a command so that the program gets our arguments `given` and our environment byte for
 * byte.
 */
export function makeExact(command: Command, given: readonly string[]): Command {
  const exact = findExactArguments(given);
  const variables = findExactVariables(command.env);
  if (variables.length === 0 && exact.every((bytes) => bytes === undefined)) return command;
  const words = command.args.map((_, index) => {
    const bytes = exact[index];
    return bytes === undefined ? `"\${${index + 1}}"` : `"$webjob_${index}"`;
  });
  const lines = [
    ...variables.map(([name, bytes]) => `${assign(name, bytes)} export ${name};`),
    ...exact.flatMap((bytes, index) => (bytes === undefined ? [] : [assign(`webjob_${index}`, bytes)])),
    `exec "$0" ${words.join(' ')}`,
  ];
  return { ...command, file: '/bin/sh', args: ['-c', lines.join(' '), command.file, ...command.args] };
}

/**
 * Assigns a value in shell. The extra character at the end protects trailing newlines, which a
 * shell would strip.
 */
function assign(name: string, bytes: string): string {
  const octal = Array.from(`${bytes}x`, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`).join('');
  return `${name}=$(printf '${octal}'); ${name}=\${${name}%x};`;
}

/**
 * Reads a list of strings that end in NUL, one character per byte; empty on systems without /proc.
 */
function readList(path: string): string[] {
  // On Windows, anyone could create a directory named /proc, and arguments arrive in UTF-16.
  if (process.platform === 'win32') return [];
  try {
    return readFileSync(path, 'latin1').split('\0').slice(0, -1);
  } catch {
    return [];
  }
}

/** Formats arguments for the run record: bytes that are not UTF-8 become `%hh`. */
export function describeArguments(args: readonly string[]): string[] {
  const exact = findExactArguments(args);
  return args.map(
    (arg, index) => exact[index]?.replace(/[\x80-\xff]/g, (c) => `%${c.charCodeAt(0).toString(16)}`) ?? arg,
  );
}
