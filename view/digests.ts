// Digests that tell outputs apart: the SHA-256 of stdout, computed once for each upload and kept in
// the view's store.
import type { StreamName } from 'webjob-locker';
import { packAt, readGroups } from '../archive/packs.ts';
import { Failure } from '../cli/failure.ts';
import { digestStream } from '../ledger/digest.ts';
import type { Job } from '../ledger/job.ts';
import { findStreams } from '../ledger/streams.ts';
import type { Context } from './context.ts';
import { findSealed } from './sealed.ts';

const TABLE =
  'CREATE TABLE IF NOT EXISTS view_digests (name TEXT PRIMARY KEY, stamp TEXT NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL) WITHOUT ROWID';

type DigestContext = Pick<Context, 'database' | 'site' | 'deadline'>;

/** A longer stream is not read for a page. */
const MAX_BYTES = 64 * 1024 * 1024;

/** The output of a job, or why it is unknown. */
export type Output = { bytes: number; sha256: string } | 'not read yet' | 'too long' | 'missing';

/** The outputs of jobs, in their order, as far as time allows. */
export async function digestOutputs(context: DigestContext, jobs: readonly Job[]): Promise<Output[]> {
  const { database } = context;
  database.exec(TABLE);
  const packed = await readPackedDigests(context, jobs);
  const outputs: Output[] = [];
  const learned: [name: string, stamp: string, bytes: number, sha256: string][] = [];
  const known = database.prepare(
    `SELECT uploads.stamp, known.stamp AS before, known.bytes, sha256
     FROM uploads LEFT JOIN view_digests AS known USING (name) WHERE name = ? AND place = ''`,
  );
  for (const { group, packed: place } of jobs) {
    if (!group) {
      outputs.push((place && packed.get(`${place.pack}\0${place.name}`)) ?? 'missing');
      continue;
    }
    const { stamp = '', before, bytes, sha256 } = known.get(group.name) ?? {};
    if (stamp !== '' && before === stamp) {
      outputs.push({ bytes: Number(bytes), sha256: String(sha256) });
      continue;
    }
    const output = await digest(context, group, 'out');
    outputs.push(output);
    if (typeof output === 'object' && stamp !== '')
      learned.push([group.name, String(stamp), output.bytes, output.sha256]);
  }
  if (learned.length > 0) keep(context, learned);
  return outputs;
}

async function digest(
  { site, deadline }: DigestContext,
  group: NonNullable<Job['group']>,
  name: StreamName,
): Promise<Output> {
  const stored = findStreams(site, group);
  const stream = stored[name];
  if (!stream) return 'missing';
  if (stream.bytes > MAX_BYTES) return 'too long';
  if (performance.now() > deadline) return 'not read yet';
  try {
    // Ciphertext differs every time, so outputs are compared by the plain text that the client
    // sealed.
    const sealed = await findSealed(stored, name);
    if (sealed) return sealed.plain;
    return { bytes: stream.bytes, sha256: await digestStream(stream) };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined && !(error instanceof Failure)) throw error;
    return 'missing';
  }
}

function keep({ database }: DigestContext, learned: readonly (readonly [string, string, number, string])[]): void {
  const insert = database.prepare('INSERT OR REPLACE INTO view_digests VALUES (?, ?, ?, ?)');
  try {
    database.exec('BEGIN IMMEDIATE');
    for (const row of learned) insert.run(...row);
    database.exec('COMMIT');
  } catch (error) {
    // Another process is writing; a digest that is not stored is computed again.
    if ((error as NodeJS.ErrnoException).code !== 'ERR_SQLITE_ERROR') throw error;
    if (database.isTransaction) database.exec('ROLLBACK');
  }
}

/** Manifests contain the digests of archived uploads. */
async function readPackedDigests(
  { site, deadline }: DigestContext,
  jobs: readonly Job[],
): Promise<Map<string, Output>> {
  const wanted = new Map<string, Set<string>>();
  for (const { group, packed } of jobs)
    if (!group && packed) wanted.set(packed.pack, (wanted.get(packed.pack) ?? new Set()).add(packed.name));
  const found = new Map<string, Output>();
  for (const [pack, names] of wanted) {
    if (performance.now() > deadline) break;
    try {
      for (const { name, files } of readGroups(packAt(site.settings, pack)))
        if (names.has(name)) found.set(`${pack}\0${name}`, { bytes: files.out.bytes, sha256: files.out.sha256 });
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
    }
  }
  return found;
}
