// Records which client has fetched which assignment, in a directory of the web user
// (docs/protocol.md, section 12). No process waits for another, and claims of a killed process stay
// valid: a claimed assignment is never handed out twice.
//
//   clients/<client>/<id>@<due>  a symbolic link to `<position>:<job id>` in the batch, which
//                                appears together with its content and only once
//   running/<id>/<n>             a symbolic link to `<seconds since 1970>:<client>:<job id>`: one
//                                of the slots of an assignment with a limit
//   taken/<id>.<ServerId>        one line for each claim, `<due> <client> <position> <job id>`,
//                                appended by one write
//
// The links are authoritative. The lines are an index for questions about all clients of an
// assignment; a missing line only costs a look at the link.
import { closeSync, openSync, readdirSync, readlinkSync, symlinkSync, unlinkSync, writeSync } from 'node:fs';
import { makeFolder, syncFolder } from './durable.ts';

/** An assignment at one of its due times. */
export interface ClaimKey {
  id: string;
  /** The due time in seconds since 1970. */
  due: number;
  /** The number of clients that may run the assignment at once. */
  limit?: number | undefined;
}

export interface Claimant {
  clientId: string;
  serverId: string;
  /** The job id of the batch that contains the claim. */
  jobId: string;
}

/** A batch: its client and its job id. */
type Batch = Pick<Claimant, 'clientId' | 'jobId'>;

/** The due time that a client claimed last, for each assignment. */
export function readClaims(folder: string, clientId: string): Map<string, number> {
  const claims = new Map<string, number>();
  for (const name of listNames(clientFolder(folder, clientId))) {
    const key = parseName(name);
    if (key && key.due > (claims.get(key.id) ?? -1)) claims.set(key.id, key.due);
  }
  return claims;
}

/**
 * Claims the keys that are not yet claimed for this client. Returns them in order, with their
 * claims on disk. Calls `beforeGiving` with them; if that throws, nothing stays claimed. Throws the
 * errors of system calls.
 */
export function claim<Key extends ClaimKey>(
  folder: string,
  claimant: Claimant,
  keys: readonly Key[],
  beforeGiving: (claimed: readonly Key[]) => void,
): Key[] {
  const own = clientFolder(folder, claimant.clientId);
  makeFolder(own);
  const claimed: Key[] = [];
  try {
    for (const key of keys) {
      if (key.limit !== undefined && !takePlace(folder, claimant, key.id, key.limit)) continue;
      const target = `${claimed.length + 1}:${claimant.jobId}`;
      if (makeLink(target, `${own}/${formatName(key)}`)) claimed.push(key);
      else if (key.limit !== undefined) leavePlace(folder, claimant, key.id);
    }
    if (claimed.length === 0) return [];
    syncFolder(own);
    beforeGiving(claimed);
  } catch (error) {
    for (const key of claimed) unlinkSync(`${own}/${formatName(key)}`);
    leavePlaces(folder, claimant);
    throw error;
  }
  forgetEarlier(own, claimed);
  note(folder, claimant, claimed);
  return claimed;
}

/** The slot of a client that does not return is freed after this time. */
const PLACE_SECONDS = 3600;

/**
 * Takes one of the slots of an assignment, `running/<id>/<number>`: a link to `<seconds since
 * 1970>:<client>:<job id>`.
 */
function takePlace(folder: string, { clientId, jobId }: Claimant, id: string, limit: number): boolean {
  const places = `${folder}/running/${id}`;
  makeFolder(places);
  const now = Math.floor(Date.now() / 1000);
  for (let number = 0; number < limit; number += 1) {
    const path = `${places}/${number}`;
    if (makeLink(`${now}:${clientId}:${jobId}`, path)) return true;
    const [since = ''] = readLink(path)?.split(':', 1) ?? [];
    if (!(now - Number(since) > PLACE_SECONDS)) continue;
    // If two processes find a slot abandoned, the second may remove the link of the first: then one
    // client too many runs it for a while.
    removeLink(path);
    if (makeLink(`${now}:${clientId}:${jobId}`, path)) return true;
  }
  return false;
}

function leavePlace(folder: string, { clientId, jobId }: Batch, id: string): void {
  const places = `${folder}/running/${id}`;
  for (const number of listNamesIfAny(places))
    if (readLink(`${places}/${number}`)?.replace(/^\d*:/, '') === `${clientId}:${jobId}`)
      removeLink(`${places}/${number}`);
}

/**
 * Frees the slots of a batch that has ended. Only its own client can do so, because job ids can be
 * guessed. Never throws.
 */
export function leavePlaces(folder: string, batch: Batch): void {
  for (const id of listNamesIfAny(`${folder}/running`)) leavePlace(folder, batch, id);
}

function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

function removeLink(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Another process removed the link.
  }
}

function listNamesIfAny(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** Parses the target of a claim's link; undefined for another link. */
export function parseClaim(target: string): { position: number; jobId: string } | undefined {
  const [, position, jobId = ''] = /^(\d{1,4}):([\x21-\x7e]{1,255})$/.exec(target) ?? [];
  return position === undefined ? undefined : { position: Number(position), jobId };
}

function clientFolder(folder: string, clientId: string): string {
  return `${folder}/clients/${clientId}`;
}

function formatName({ id, due }: ClaimKey): string {
  return `${id}@${due}`;
}

function parseName(name: string): ClaimKey | undefined {
  const [, id, due] = /^([1-9][0-9]{0,8})@([0-9]{1,12})$/.exec(name) ?? [];
  return id === undefined ? undefined : { id, due: Number(due) };
}

/** Makes a link; false when it already exists. */
function makeLink(target: string, path: string): boolean {
  try {
    symlinkSync(target, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

function note(folder: string, { clientId, serverId, jobId }: Claimant, claimed: readonly ClaimKey[]): void {
  try {
    makeFolder(`${folder}/taken`);
    for (const [index, { id, due }] of claimed.entries()) {
      const fd = openSync(`${folder}/taken/${id}.${serverId}`, 'a', 0o644);
      try {
        writeSync(fd, `${due} ${clientId} ${index + 1} ${jobId}\n`);
      } finally {
        closeSync(fd);
      }
    }
  } catch {
    // The links contain the same facts.
  }
}

/**
 * Removes earlier claims except the last one, which is kept in case the clock is set back a little.
 * A claim that cannot be removed does no harm.
 */
function forgetEarlier(own: string, claimed: readonly ClaimKey[]): void {
  const dueOf = new Map(claimed.map(({ id, due }) => [id, due]));
  const earlier = new Map<string, number[]>();
  for (const name of listNames(own)) {
    const { id = '', due = 0 } = parseName(name) ?? {};
    if (due < (dueOf.get(id) ?? 0)) earlier.set(id, [...(earlier.get(id) ?? []), due]);
  }
  for (const [id, dues] of earlier) {
    for (const due of dues.sort((a, b) => b - a).slice(1)) {
      try {
        unlinkSync(`${own}/${formatName({ id, due })}`);
      } catch {
        // Another server may have removed the claim.
      }
    }
  }
}

function listNames(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
