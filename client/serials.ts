// DsvSerialFile: the highest serial number accepted so far from the manifests of each program, so
// that a server cannot go back to an older program. A line is `ClientId name serial SHA-256`; the
// SHA-256 is that of the manifest with this serial.
import { isClientId, isFileName } from 'webjob-protocol';
import { Failure } from './failure.ts';
import { changeSeen, readSeen } from './seen.ts';

/** A serial, and the hash of the manifest that contained it. */
export interface Seen {
  serial: number;
  textHash: string;
}

type SeenByName = Map<string, Seen>;

/** The serials of one client. Concurrent runs may share the file. */
export class Serials {
  readonly #path: string;
  readonly #clientId: string;

  constructor(path: string, clientId: string) {
    this.#path = path;
    this.#clientId = clientId;
  }

  /**
   * Checks a serial. Throws Failure `settings` for a file that is unreadable or was not written by
   * webjob, `get` for a serial that is too old.
   */
  check(name: string, offered: Seen): void {
    this.#compare(this.#read(), name, offered);
  }

  /**
   * Stores a serial; it is on disk when this returns. Throws the same as check(), and Failure `get`
   * when the file cannot be written.
   */
  take(name: string, offered: Seen): void {
    // Most runs have nothing to write and need not wait for others.
    const last = this.#read().get(this.#keyOf(name));
    if (last?.serial === offered.serial && last.textHash === offered.textHash) return;
    // Another run may have stored a higher serial meanwhile.
    changeSeen('DsvSerialFile', this.#path, () => {
      const seen = this.#read();
      if (!this.#compare(seen, name, offered)) return undefined;
      return format(seen.set(this.#keyOf(name), offered));
    });
  }

  /** Whether the offered serial is new. */
  #compare(seen: SeenByName, name: string, offered: Seen): boolean {
    const last = seen.get(this.#keyOf(name));
    if (last === undefined || offered.serial > last.serial) return true;
    if (offered.serial < last.serial)
      throw new Failure(
        'get',
        `the program's manifest is refused: its serial ${offered.serial} is lower than ${last.serial}, which was seen before`,
        'the server sent an older program; if that is intended, sign it again',
      );
    if (offered.textHash === last.textHash) return false;
    throw new Failure(
      'get',
      `the program's manifest is refused: another manifest had its serial ${offered.serial}`,
      'sign the program again, with a higher serial',
    );
  }

  #keyOf(name: string): string {
    return `${this.#clientId} ${name}`;
  }

  #read(): SeenByName {
    return new Map(
      readSeen('DsvSerialFile', this.#path, ([clientId = '', name = '', serial = '', textHash = '', ...more]) => {
        const isOurs = isClientId(clientId) && isFileName(name) && /^\d{1,15}$/.test(serial) && more.length === 0;
        if (!isOurs || !/^[0-9a-f]{64}$/.test(textHash)) return undefined;
        return [`${clientId} ${name}`, { serial: Number(serial), textHash }];
      }),
    );
  }
}

function format(seen: SeenByName): string {
  const lines = Array.from(seen, ([key, { serial, textHash }]) => `${key} ${serial} ${textHash}\n`);
  return lines.sort().join('');
}
