// What ends webjobctl that is nobody's bug, and its exit codes. Messages are lower case without a full stop.

export const EXIT_CODES = {
  ok: 0,
  /** It worked, and what it looked at is not as it should be: findings, no match, a difference. */
  findings: 1,
  usage: 2,
  settings: 3,
  /** A file, a program or the network did not do what it had to. */
  failed: 4,
  /** There is nothing to compare with: no such job, no earlier one, no such stream. */
  nothing: 5,
} as const;

export class Failure extends Error {
  readonly kind: keyof typeof EXIT_CODES;
  readonly hint: string | undefined;
  constructor(kind: keyof typeof EXIT_CODES, message: string, hint?: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
    this.hint = hint;
  }
}
