// The file beside DsvSerialFile that lists the due times of the signed assignments that this client
// has run, so that a server cannot make it run one again. A line is `ClientId SHA-256 DUE END`: the
// digest of the signed text, its last due time, and its end, both in seconds since 1970.
import { isClientId } from 'webjob-protocol';
import { Failure } from './failure.ts';
import { changeSeen, readSeen } from './seen.ts';
import type { ClientSettings } from './settings.ts';

/** One due time of an assignment. */
export interface DueTime {
  textHash: string;
  /** Seconds since 1970. */
  due: number;
  /** Seconds since 1970; after this time the assignment is refused as ended. */
  end: number;
}

const SETTING = 'DsvSerialFile';
const SUFFIX = '.assignments';
/** A line is kept this long after its end, in case the clock is set back. */
const KEPT_SECONDS = 400 * 86_400;
const SECONDS = /^\d{1,12}$/;

/** The due times of one client. Concurrent runs may share the file. */
export class DueTimes {
  readonly #path: string;
  readonly #clientId: string;

  constructor({ dsvSerialFile, clientId }: ClientSettings) {
    this.#path = dsvSerialFile + SUFFIX;
    this.#clientId = clientId;
  }

  /**
   * Checks a due time. Throws Failure `settings` for a file that is unreadable or was not written
   * by webjob, `get` for a due time that was already taken.
   */
  check(offered: DueTime): void {
    this.#compare(this.#read(), offered);
  }

  /**
   * Takes a due time; it is on disk when this returns. Throws the same as `check`, and Failure
   * `get` when the file cannot be written.
   */
  take(offered: DueTime): void {
    changeSeen(SETTING, this.#path, () => {
      const seen = this.#read();
      this.#compare(seen, offered);
      seen.set(this.#keyOf(offered), offered);
      const oldest = Math.floor(Date.now() / 1000) - KEPT_SECONDS;
      const kept = [...seen].filter(([, { end }]) => end >= oldest);
      return kept
        .map(([key, { due, end }]) => `${key} ${due} ${end}\n`)
        .sort()
        .join('');
    });
  }

  #compare(seen: ReadonlyMap<string, DueTime>, offered: DueTime): void {
    const last = seen.get(this.#keyOf(offered));
    if (last !== undefined && offered.due <= last.due)
      throw new Failure('get', `it was run before, for ${last.due}`, 'to run it again, sign it again');
  }

  #keyOf({ textHash }: DueTime): string {
    return `${this.#clientId} ${textHash}`;
  }

  #read(): Map<string, DueTime> {
    return new Map(
      readSeen(SETTING, this.#path, ([clientId = '', textHash = '', due = '', end = '', ...more]) => {
        const isOurs = isClientId(clientId) && /^[0-9a-f]{64}$/.test(textHash) && more.length === 0;
        if (!isOurs || !SECONDS.test(due) || !SECONDS.test(end)) return undefined;
        return [`${clientId} ${textHash}`, { textHash, due: Number(due), end: Number(end) }] as const;
      }),
    );
  }
}
