// What ends pad-make-script that is nobody's bug, and its exit codes.
import { BUG } from '../cli/program.ts';

export const EXIT_CODES = {
  ok: 0,
  usage: 1,
  payload: 2,
  output: 3,
  bug: BUG,
} as const;

export class PadFailure extends Error {
  readonly kind: keyof typeof EXIT_CODES;
  readonly hint: string | undefined;
  constructor(kind: keyof typeof EXIT_CODES, message: string, hint?: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
    this.hint = hint;
  }
}
