// The client lock: only one command at a time works on a client. Also the note that exists while a
// client is being added: a note that remains means that an add was killed. The next add may start
// over, because nobody was told that the client exists.
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { syncFolder } from 'webjob-locker/durable';
import { Failure } from '../../cli/failure.ts';
import { errorCode, removeUnfinished, replaceFile } from '../../cli/files.ts';
import { withLock } from '../../cli/lockfile.ts';
import type { Context } from './context.ts';

/** Runs `work` while no other command works on the client. Throws Failure. */
export function withClient<Type>({ etcDirectory }: Context, client: string, work: () => Type): Type {
  try {
    return withLock(join(etcDirectory, `.webjob-client.${client}`), work);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (error instanceof Failure || code === undefined) throw error;
    throw new Failure('failed', `${etcDirectory} cannot be changed: ${code}`, undefined, { cause: error });
  }
}

const noteOf = ({ etcDirectory }: Context, client: string): string =>
  join(etcDirectory, `.webjob-client.${client}.adding`);

/** The directory that a killed add was filling; undefined for none. */
export function readNote(context: Context, client: string): string | undefined {
  try {
    return readFileSync(noteOf(context, client), 'utf8').trimEnd();
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

export function writeNote(context: Context, client: string, folder: string): void {
  removeUnfinished(noteOf(context, client));
  replaceFile(noteOf(context, client), `${folder}\n`, { mode: 0o600 });
}

/** Removes the note, when the client has been added or removed. */
export function removeNote(context: Context, client: string): void {
  if (readNote(context, client) === undefined) return;
  rmSync(noteOf(context, client));
  syncFolder(context.etcDirectory);
}
