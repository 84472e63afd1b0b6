// What ends a job that is nobody's bug, and the exit codes of webjob. Messages are lower case without a full stop and never
// hold a password.

export const EXIT_CODES = {
  ok: 0,
  usage: 1,
  settings: 2,
  get: 3,
  run: 4,
  put: 5,
} as const;

export class Failure extends Error {
  readonly stage: keyof typeof EXIT_CODES;
  readonly hint: string | undefined;
  constructor(stage: keyof typeof EXIT_CODES, message: string, hint?: string, options?: ErrorOptions) {
    super(message, options);
    this.stage = stage;
    this.hint = hint;
  }
}
