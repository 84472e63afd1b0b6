// Expected failures that end a program, and the exit codes of webjobctl, webjob-sign and
// pad-make-script. Messages are lower case without a full stop, and never contain a password.

export const EXIT_CODES = {
  ok: 0,
  /**
   * The command worked, but its result is negative: findings, no match, a difference.
   */
  findings: 1,
  usage: 2,
  settings: 3,
  /** A file, a program or the network failed. */
  failed: 4,
  /** There is nothing to compare with: no such job, no earlier one, no such stream. */
  nothing: 5,
  /** EX_SOFTWARE of sysexits.h. */
  bug: 70,
} as const;

/** A failure that ends a program; the kind determines its exit code. */
export class KnownFailure<Kind extends string> extends Error {
  readonly kind: Kind;
  /** Each is printed on a line of its own. */
  readonly hints: readonly string[];
  constructor(kind: Kind, message: string, hint: string | readonly string[] = [], options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
    this.hints = typeof hint === 'string' ? [hint] : hint;
  }
}

export class Failure extends KnownFailure<keyof typeof EXIT_CODES> {}
