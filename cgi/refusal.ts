// An expected failure: a status of the contract and what the log says about it. Anything else that is thrown is a bug.
import type { Status } from 'webjob-protocol';

export class Refusal extends Error {
  readonly status: Status;
  /** Seconds, for the client that is to try again; undefined where nobody knows. */
  readonly retryAfter: number | undefined;
  /** `detail` names the field or file at fault and never echoes bytes of the request. */
  constructor(status: Status, detail: string, retryAfter?: number) {
    super(detail);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}
