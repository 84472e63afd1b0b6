// Expected failures of a job, and the exit codes of webjob. Messages are lower case, have no full
// stop and never contain a password.
import { EXIT_CODES as COMMON, KnownFailure } from '../cli/failure.ts';
import { say } from '../cli/streams.ts';

export const EXIT_CODES = {
  ok: 0,
  usage: 1,
  settings: 2,
  get: 3,
  run: 4,
  put: 5,
  lock: 6,
  bug: COMMON.bug,
  /** EX_IOERR of sysexits.h. */
  output: 74,
} as const;

/** Prints a warning for the user; the job continues. */
export function warn(message: string): void {
  say(`webjob: warning: ${message}`);
}

export class Failure extends KnownFailure<keyof typeof EXIT_CODES> {}

/** A failed exchange with a server; the calling stage adds its name to the message. */
export class WireError extends Error {
  /** Seconds until the next try may succeed; undefined when trying again makes no sense. */
  readonly retryAfter: number | undefined;
  readonly hint: string | undefined;
  constructor(message: string, retryAfter?: number, hint?: string) {
    super(message);
    this.retryAfter = retryAfter;
    this.hint = hint;
  }
}

/**
 * The numbers of EDQUOT, an exhausted quota, for which libuv has no name: `Unknown system error
 * -122` on Linux, -69 on the BSDs.
 */
const QUOTA_ERRNOS = new Set<number | undefined>([-122, -69]);

/** The name of a system call's error, or the message of any other error. */
export function codeOf(error: unknown): string {
  const { code, errno, message } = error as NodeJS.ErrnoException;
  return QUOTA_ERRNOS.has(errno) ? 'EDQUOT' : (code ?? message);
}

/** Converts the error of an exchange with a server to the failure of a stage. */
export function failureOf(stage: 'get' | 'put', what: string, error: unknown): Failure {
  if (error instanceof Failure) return error;
  const hint = error instanceof WireError ? error.hint : undefined;
  return new Failure(stage, `${what} failed: ${(error as Error).message}`, hint, { cause: error });
}
