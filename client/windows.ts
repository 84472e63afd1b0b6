// Starting programs on Windows: names that are valid files, full paths of system programs, and
// command lines that cmd.exe interprets as intended. These functions work on text only, so that
// they are tested on every system.
import { existsSync } from 'node:fs';
import { win32 } from 'node:path';

/**
 * The arguments of a call that starts a program: a file, its whole command line after the name, and
 * the environment.
 */
export interface ShellCommand {
  file: string;
  args: string[];
  options: { windowsVerbatimArguments: true; windowsHide: boolean; argv0: string };
}

/** A reason why a job cannot run, and the remedy. */
export interface Obstacle {
  message: string;
  hint: string;
}

/** The limit of cmd.exe, in UTF-16 code units. */
const LONGEST_COMMAND = 8191;

/** Device names, which exist in every directory and with every extension. */
const DEVICE = /^(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)/i;

/**
 * The extensions of files that Windows starts. For a name without such an extension, Windows starts
 * a file that has one appended.
 */
const RUNNABLE = /\.(?:bat|cmd|com|exe)$/i;

const BATCH = /\.(?:bat|cmd)$/i;

/**
 * Arguments that both cmd.exe and programs take as one word without a special meaning. All others
 * are quoted.
 */
const PLAIN = /^[\w#$*+\-./:?@\\]+$/;

/** Whether cmd.exe must run a file. */
export function isBatch(path: string): boolean {
  return BATCH.test(path);
}

/** Whether Windows can start a file by its name. */
export function isRunnable(path: string): boolean {
  return RUNNABLE.test(path);
}

/**
 * The full path of a Windows system program; undefined when it does not exist. A bare name would be
 * looked up first in the current directory, and a path without a drive on the current drive.
 */
export function findSystemProgram(
  name: 'cmd.exe' | 'taskkill.exe',
  env: NodeJS.ProcessEnv = process.env,
  exists: (path: string) => boolean = existsSync,
): string | undefined {
  return [env.SystemRoot, env.windir, 'C:\\Windows']
    .filter((folder) => folder !== undefined && /^[A-Za-z]:\\/.test(folder))
    .map((folder) => win32.join(folder ?? '', 'System32', name))
    .find((path) => exists(path));
}

/** Why Windows cannot store a program under a name; undefined when it can. */
export function findNameObstacle(program: string): Obstacle | undefined {
  const refuse = (why: string): Obstacle => ({
    message: `Windows cannot store a program named ${program}: ${why}`,
    hint: 'give it another name in the profile',
  });
  if (program.includes(':')) return refuse('a colon separates the name of a stream');
  if (DEVICE.test(program)) return refuse('it is the name of a device');
  return program.endsWith('.') ? refuse('a dot at the end is dropped') : undefined;
}

/** Why cmd.exe cannot take the command line of a batch file; undefined when it can. */
export function findBatchObstacle(path: string, args: readonly string[]): Obstacle | undefined {
  if (path.includes('%'))
    return { message: `cmd.exe would expand the % in ${path}`, hint: 'set TempDirectory to a directory without a %' };
  for (const [index, arg] of args.entries()) {
    const why = findArgumentFault(arg);
    if (why)
      return {
        message: `argument ${index + 1} of the program must not contain ${why}`,
        hint: 'put it into an environment variable, which the program inherits',
      };
  }
  const { length } = formatBatchLine(path, args);
  if (length <= LONGEST_COMMAND) return undefined;
  return {
    message: `the command must be at most ${LONGEST_COMMAND} characters for cmd.exe (got ${length})`,
    hint: 'put long arguments into a file, and give its name',
  };
}

/**
 * Why cmd.exe cannot take an argument: no quoting keeps it from expanding `%NAME%`, and a line
 * break ends its command.
 */
function findArgumentFault(arg: string): string | undefined {
  if (arg.includes('%')) return 'a %, which cmd.exe would expand';
  const isControl = (char: string): boolean => (char < ' ' && char !== '\t') || char === '\x7f';
  return [...arg].some(isControl) ? 'a control character, which cmd.exe would not pass on' : undefined;
}

/**
 * The command line with which cmd.exe runs a batch file. Must not be called with a path or
 * arguments that findBatchObstacle() rejects.
 */
export function formatBatchLine(path: string, args: readonly string[]): string {
  return [`"${path}"`, ...args.map(quoteForBatch)].join(' ');
}

/**
 * Quotes an argument for cmd.exe. Every quote in it is doubled, so that the whole argument stays
 * quoted both for cmd.exe and for `"%~1"` in the batch file. Programs read a doubled quote as one
 * quote, and a backslash before a quote as an escape.
 */
function quoteForBatch(arg: string): string {
  if (PLAIN.test(arg)) return arg;
  const doubled = arg.replace(/(\\*)"/g, '$1$1""').replace(/(\\+)$/, '$1$1');
  return `"${doubled}"`;
}

/**
 * Runs a command line with the cmd.exe at `shell`: exactly the text between the outer quotes (/s),
 * without the AutoRun commands of the registry (/d), and without expanding `!NAME!` (/v:off).
 */
export function makeShellCommand(shell: string, line: string, windowsHide: boolean): ShellCommand {
  return {
    file: shell,
    args: ['/d', '/e:on', '/v:off', '/s', '/c', `"${line}"`],
    options: { windowsVerbatimArguments: true, windowsHide, argv0: `"${shell}"` },
  };
}
