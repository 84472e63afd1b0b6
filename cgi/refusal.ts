// An expected failure: a status of docs/protocol.md, and a detail for the log. Anything else that
// is thrown is a bug.
import type { Status } from 'webjob-protocol';

export class Refusal extends Error {
  readonly status: Status;
  /** Retry-After in seconds; undefined when unknown. */
  readonly retryAfter: number | undefined;
  /** `detail` names the field or file at fault and never contains bytes of the request. */
  constructor(status: Status, detail: string, retryAfter?: number) {
    super(detail);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}
