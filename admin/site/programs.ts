// Runs other programs: openssl, htpasswd, httpd, without a shell and without secrets in arguments.
import { spawnSync } from 'node:child_process';
import { Failure } from '../../cli/failure.ts';
import { safeText } from '../../cli/output.ts';

const TIME_LIMIT_MS = 120_000;

/** An administrator's PATH may lack the directories of httpd and its tools. */
const SEARCH_PATH = [process.env.PATH ?? '', '/usr/sbin', '/usr/local/sbin', '/usr/local/apache/bin', '/sbin'].join(
  ':',
);

/** The package of each program, for hints. */
const PACKAGES: Record<string, string> = {
  openssl: 'openssl',
  htpasswd: 'apache2-utils (Debian) or httpd-tools (Red Hat)',
  apachectl: 'apache2 (Debian) or httpd (Red Hat)',
  a2enmod: 'apache2',
  a2enconf: 'apache2',
};

export interface Ended {
  status: number | null;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  input?: string | Buffer;
  cwd?: string;
  /** Additions to the environment. */
  environment?: Record<string, string>;
}

/**
 * Runs a program to its end, whatever its status. Throws Failure `failed` when it does not exist or
 * takes longer than two minutes.
 */
export function askProgram(command: string, args: readonly string[], options: RunOptions = {}): Ended {
  const ended = spawnSync(command, args, {
    encoding: 'utf8',
    input: options.input ?? '',
    timeout: TIME_LIMIT_MS,
    maxBuffer: 64 * 1024 * 1024,
    env: { ...process.env, PATH: SEARCH_PATH, LC_ALL: 'C', ...options.environment },
    ...(options.cwd !== undefined && { cwd: options.cwd }),
  });
  const { code } = (ended.error ?? {}) as NodeJS.ErrnoException;
  if (code === 'ENOENT') {
    const where = PACKAGES[command];
    throw new Failure('failed', `${command} is not installed`, where && `it is in the package ${where}`);
  }
  if (ended.error) throw new Failure('failed', `${command} cannot be run: ${code}`);
  return { status: ended.status, stdout: ended.stdout, stderr: ended.stderr };
}

/**
 * Runs a program that must succeed, and returns its stdout. Throws Failure `failed` with its last
 * messages.
 */
export function runProgram(command: string, args: readonly string[], options: RunOptions = {}): string {
  const { status, stdout, stderr } = askProgram(command, args, options);
  if (status === 0) return stdout;
  const said = safeText(stderr.trim().split('\n').slice(-4).join('\n'));
  throw new Failure('failed', `${command} ${args[0] ?? ''} failed with ${status}: ${said}`);
}

/** Runs `work` with a umask that makes new files readable by their owner only. */
export function withPrivateUmask<Type>(work: () => Type): Type {
  const before = process.umask(0o077);
  try {
    return work();
  } finally {
    process.umask(before);
  }
}
