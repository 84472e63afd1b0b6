// What ends a job that is nobody's bug, and the exit codes of webjob. Messages are lower case without a full stop and never
// hold a password.
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

/** What the user should know although the job goes on. */
export function warn(message: string): void {
  say(`webjob: warning: ${message}`);
}

export class Failure extends KnownFailure<keyof typeof EXIT_CODES> {}

/** What went wrong on the way; the stages say in which one. */
export class WireError extends Error {
  /** Seconds after which it may go better; undefined when trying again makes no sense. */
  readonly retryAfter: number | undefined;
  readonly hint: string | undefined;
  constructor(message: string, retryAfter?: number, hint?: string) {
    super(message);
    this.retryAfter = retryAfter;
    this.hint = hint;
  }
}

/** libuv has no name for EDQUOT, a quota that is used up: `Unknown system error -122` on Linux, -69 on the BSDs. */
const QUOTA_ERRNOS = new Set<number | undefined>([-122, -69]);

/** The name of a system call's error; for any other its message. */
export function codeOf(error: unknown): string {
  const { code, errno, message } = error as NodeJS.ErrnoException;
  return QUOTA_ERRNOS.has(errno) ? 'EDQUOT' : (code ?? message);
}

/** The failure of a stage that an exchange with a server ended with. */
export function failureOf(stage: 'get' | 'put', what: string, error: unknown): Failure {
  if (error instanceof Failure) return error;
  const hint = error instanceof WireError ? error.hint : undefined;
  return new Failure(stage, `${what} failed: ${(error as Error).message}`, hint, { cause: error });
}
