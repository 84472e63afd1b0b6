// What webjobctl puts on record before it touches anything: who removes, packs or holds what. It has a custody file of its own, as every
// server has, so that none depends on who made the file of another.
import { createReadStream } from 'node:fs';
import { userInfo } from 'node:os';
import split2 from 'split2';
import { appendCustody, custodyPath, MAX_RECORD_BYTES, parseCustody } from 'webjob-locker';
import type { ServerSettings } from '../../cgi/controls.ts';
import type { GroupFacts } from './removal.ts';

/** Its name among the servers. */
export const WRITER = 'webjobctl';

/** What a record of `prune` or `unpack` says of each group. */
export interface RemovedGroup {
  name: string;
  jobId: string | undefined;
  files: GroupFacts;
}

/** A pack as records name it. */
export interface PackFacts {
  pack: string;
  /** How many it holds. */
  count: number;
  archiveBytes: number;
  archiveSha256: string;
  manifestSha256: string;
}

/** `names` is what a reader of the custody record goes by: the groups that were taken out of the locker, at most BATCH in a record. */
export type KeepEvent =
  | { event: 'prune'; rule: string; names: string[]; groups: RemovedGroup[]; pack?: string }
  | ({ event: 'pack'; names: string[] } & PackFacts)
  | ({ event: 'unpack' } & PackFacts)
  | ({ event: 'prune-pack'; rule: string } & PackFacts)
  | { event: 'hold' | 'release'; kind: 'client' | 'job'; id: string; reason: string };

/** So many groups fit into a record, however long their names are. */
export const BATCH = 100;

/** Appends a record, on disk when it returns. */
export function recordEvent(settings: ServerSettings, event: KeepEvent): void {
  const path = custodyPath(settings.logfilesDirectory, WRITER);
  appendCustody(path, { time: new Date().toISOString(), by: operatorName(), ...event }, true);
}

/** The records of one kind, the oldest first. None when there is no file yet. */
export async function* readEvents<Name extends KeepEvent['event']>(
  settings: ServerSettings,
  name: Name,
): AsyncGenerator<Extract<KeepEvent, { event: Name }>> {
  const input = createReadStream(custodyPath(settings.logfilesDirectory, WRITER), 'utf8');
  const lines = input.pipe(split2({ maxLength: 2 * MAX_RECORD_BYTES }));
  input.on('error', (error) => lines.destroy(error));
  try {
    for await (const line of lines) {
      if (!line.includes(`"event":"${name}"`)) continue;
      const text = parseCustody(line)?.text;
      if (text !== undefined) yield JSON.parse(text);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

/** `alice`, or `root (alice)` behind sudo. */
export function operatorName(): string {
  const { username } = userInfo();
  const { SUDO_USER } = process.env;
  return SUDO_USER && SUDO_USER !== username ? `${username} (${SUDO_USER})` : username;
}
