// strace for tests: reads which system calls the script made in which order, and lets one of them
// fail or kill it.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** Why strace cannot be used here; undefined when it can. For node:test's `skip`. */
export const NO_STRACE = findObstacle();

function findObstacle(): string | undefined {
  const tried = spawnSync('strace', ['-f', '-o', '/dev/null', process.execPath, '-e', '0'], { encoding: 'utf8' });
  if (tried.error) return 'strace is not installed';
  return tried.status === 0 ? undefined : `strace may not trace here: ${tried.stderr.trim().split('\n').at(-1)}`;
}

/**
 * The calls by which an upload reaches the disk. The question marks are for calls that not every
 * machine has.
 */
const CALLS = [
  ...[
    '?openat',
    '?write',
    '?writev',
    '?pwrite64',
    '?fsync',
    '?fdatasync',
    '?close',
    '?statfs',
    '?rename',
    '?renameat',
    '?renameat2',
  ],
  ...['?link', '?linkat', '?unlink', '?unlinkat', '?mkdir', '?mkdirat'],
];

/** One system call of a trace. */
export interface Call {
  name: string;
  /**
   * With paths for descriptors: `openat(AT_FDCWD</>, "/a.lck", O_WRONLY|O_CREAT|O_EXCL, 0644) =
   * 3</a.lck>`
   */
  text: string;
}

/** A command prefix that writes a program's calls to `file`: all, or those on one of the paths. */
export function traceTo(file: string, paths: readonly string[] = []): string[] {
  return trace(file, CALLS, paths);
}

function trace(file: string, calls: readonly string[], paths: readonly string[]): string[] {
  const filter = paths.flatMap((path) => ['-P', path]);
  return ['strace', '-f', '-y', '-s', '16', '-e', `trace=${calls.join(',')}`, '-o', file, ...filter];
}

/**
 * A command prefix that injects something into a program's calls: `fsync:error=EIO:when=2`. Only
 * calls on one of the paths count, which are matched as a whole.
 */
export function inject(file: string, injection: string, paths: readonly string[]): string[] {
  const injected = injection.slice(0, injection.indexOf(':'));
  return [...trace(file, [...CALLS, injected], paths), '-e', `inject=${injection}`];
}

/**
 * The finished calls of a trace in the order in which they ended. A path through a descriptor is
 * the one by which the descriptor was opened.
 */
export function readTrace(file: string): Call[] {
  const begun = new Map<string, string>();
  const opened = new Map<string, string>();
  return readFileSync(file, 'latin1')
    .split('\n')
    .flatMap((line) => {
      const [, thread = '', said = ''] = /^(\d+) +(.*)$/.exec(line) ?? [];
      // Another thread came in between, so the call is split into two lines.
      const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(said);
      const whole = resumed ? `${begun.get(thread) ?? ''}${resumed[1]}` : said;
      const text = whole.replace(/\/proc\/self\/fd\/(\d+)(?=\/)/g, (path, fd) => opened.get(fd) ?? path);
      const [, fd, folder] = /^openat\(.* = (\d+)<([^>]*)>$/.exec(text) ?? [];
      if (fd !== undefined && folder !== undefined) opened.set(fd, folder);
      const unfinished = / ?<unfinished \.\.\.>$/.exec(text);
      if (unfinished) begun.set(thread, text.slice(0, unfinished.index));
      const name = /^(\w+)\(/.exec(text)?.[1];
      return name === undefined || unfinished ? [] : [{ name, text }];
    });
}
