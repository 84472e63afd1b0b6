// Signed assignments: with DsvVerifyManifest=Y, each assignment of a batch is checked against the
// signed note that came with the batch before the assignment runs (docs/protocol.md, section 12).
// The programs themselves are checked by their manifests when they are fetched.
import { createHash } from 'node:crypto';
import type { Order } from '../fleet/batch-script.ts';
import { findRefusal, openAssignment } from '../fleet/signed.ts';
import { NoteError } from '../notes/note.ts';
import { type DueTime, DueTimes } from './due-times.ts';
import { Failure } from './failure.ts';
import { readTrustedKeys } from './manifest.ts';
import type { ClientSettings } from './settings.ts';
import { printable } from './status.ts';

/** Checks the assignments ("orders") of one batch. */
export interface OrderCheck {
  /** Checks an order. Throws Failure `get` if the order must not run. */
  check(order: Order): void;
  /**
   * Checks an order and stores its due time, so that the order never runs again. Throws Failure
   * `get` if the order must not run.
   */
  take(order: Order): void;
}

/**
 * Prepares the check of a batch that was received at the time `at`. Throws Failure `settings` for
 * unusable keys.
 */
export function prepareOrders(settings: ClientSettings, at: Date): OrderCheck {
  const keys = readTrustedKeys(settings);
  const dueTimes = new DueTimes(settings);
  const { clientId, dsvThreshold, dsvRequireManifest } = settings;
  const judge = (order: Order): DueTime | undefined => {
    const { note, due } = order;
    if (note === undefined) {
      if (!dsvRequireManifest) return undefined;
      throw refused('it is not signed', 'DsvRequireManifest=Y accepts only signed assignments');
    }
    try {
      const { assignment, text } = openAssignment(Buffer.from(note), keys, dsvThreshold);
      const refusal = findRefusal(assignment, order, { clientId, at });
      if (refusal !== undefined) throw refused(refusal);
      const textHash = createHash('sha256').update(text).digest('hex');
      return { textHash, due, end: assignment.notAfter.getTime() / 1000 };
    } catch (error) {
      if (error instanceof NoteError) throw refused(error.message);
      throw error;
    }
  };
  return {
    check: (order) => {
      const offered = judge(order);
      if (offered) dueTimes.check(offered);
    },
    take: (order) => {
      const offered = judge(order);
      if (offered) dueTimes.take(offered);
    },
  };
}

function refused(why: string, hint?: string): Failure {
  return new Failure('get', printable(why), hint);
}
