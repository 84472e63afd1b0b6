// Arguments and environment that are not UTF-8. Node reads them with U+FFFD for every byte that does not fit, and starts programs with what
// it read. Where the kernel shows them as they came (/proc), such a program is started through the shell, which makes the bytes anew.
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { decodeUtf8 } from './bytes.ts';
import { Failure } from './failure.ts';
import { findBatchObstacle, findNameObstacle, isBatch, type ShellCommand } from './windows.ts';

/** What starts a program: a file, its arguments, and the environment. */
export interface Command {
  file: string;
  args: string[];
  env: NodeJS.ProcessEnv;
  /** What else spawn is told. */
  options?: ShellCommand['options'];
}

const REPLACED = '\ufffd';

/** The bytes of our last arguments, as the kernel has them; undefined for those that Node read as they are. */
export function findExactArguments(args: readonly string[]): (string | undefined)[] {
  if (!args.some((arg) => arg.includes(REPLACED))) return args.map(() => undefined);
  const all = readList('/proc/self/cmdline');
  const own = all.slice(all.length - args.length);
  return args.map((arg, index) => {
    const bytes = own[index] ?? '';
    return arg.includes(REPLACED) && decodeUtf8(bytes) === undefined ? bytes : undefined;
  });
}

/** Throws Failure `usage` for an argument that the program would not get as it was given; `path` is where it will be. */
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
    'let the program find the name itself',
  );
}

/** Windows gives its arguments as UTF-16; what cmd.exe cannot be given is known before anything is fetched. */
function checkForWindows(path: string, args: readonly string[]): void {
  const obstacle = findNameObstacle(basename(path)) ?? (isBatch(path) ? findBatchObstacle(path, args) : undefined);
  if (obstacle) throw new Failure('usage', obstacle.message, obstacle.hint);
}

/** Variables whose values Node did not read as they are. A name that no shell could set is left as Node has it. */
function findExactVariables(env: NodeJS.ProcessEnv): [name: string, bytes: string][] {
  if (!Object.values(env).some((value) => value?.includes(REPLACED))) return [];
  return readList('/proc/self/environ').flatMap((entry): [string, string][] => {
    const [, name = '', bytes = ''] = /^([A-Za-z_]\w*)=(.*)$/s.exec(entry) ?? [];
    return env[name]?.includes(REPLACED) && decodeUtf8(bytes) === undefined ? [[name, bytes]] : [];
  });
}

/** The same command, in which the program gets our arguments `given` and our environment byte for byte. */
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

/** The sentinel keeps newlines at the end, which a shell would drop. */
function assign(name: string, bytes: string): string {
  const octal = Array.from(`${bytes}x`, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`).join('');
  return `${name}=$(printf '${octal}'); ${name}=\${${name}%x};`;
}

/** Entries that end in NUL, a byte a character; none where no /proc tells. */
function readList(path: string): string[] {
  // On Windows anybody may make a folder of that name, and arguments come as UTF-16.
  if (process.platform === 'win32') return [];
  try {
    return readFileSync(path, 'latin1').split('\0').slice(0, -1);
  } catch {
    return [];
  }
}

/** Arguments as the record shows them: bytes that are not UTF-8 as `%hh`. */
export function describeArguments(args: readonly string[]): string[] {
  const exact = findExactArguments(args);
  return args.map(
    (arg, index) => exact[index]?.replace(/[\x80-\xff]/g, (c) => `%${c.charCodeAt(0).toString(16)}`) ?? arg,
  );
}
