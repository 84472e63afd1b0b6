// Writes the status of a site for the view: facts that root collects with the code of alert, latest
// and assign. With it, no page has to read a file that only root may read.
import { chmodSync, chownSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { syncFolder } from 'webjob-locker/durable';
import { Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';
import { readGroups } from '../../ledger/groups.ts';
import { type Database, openDatabase } from '../../ledger/sqlite.ts';
import { findEnding, findStopped } from '../alerts/problems.ts';
import { readState } from '../alerts/state.ts';
import type { Context } from '../clients/context.ts';
import { describeAssignment } from '../fleet/assigning.ts';
import { readBook } from '../fleet/assignments.ts';
import { findTargets, listClientIds } from '../fleet/clients.ts';
import { findMissed, readRules } from '../fleet/expectations.ts';
import { describeProgress, readProgress } from '../fleet/states.ts';
import type { Site } from '../site/site.ts';
import { isRoot, type User } from '../site/users.ts';
import { STATUS_INDEXES, STATUS_PARTS, STATUS_TABLES, type StatusPart, statusFile } from './status.ts';

/** A status is not replaced within this time. */
const FRESH_MS = 300_000;
/** Warn of certificates this long before their end, unless the rules of the site say otherwise. */
const CERTIFICATE_SECONDS = 30 * 86_400;
/** The maximum number of problems listed for each part. */
const MOST_PROBLEMS = 10_000;
/** The number of newest finished assignments whose clients are listed too. */
const MOST_PAST = 10;

export interface StatusSource {
  site: Site;
  context: Context;
  /** The directory of answers. */
  answers: string;
  /** The user whose group may read the status. */
  reader: Pick<User, 'gid'>;
}

/** Whether the status is missing or old. */
export function isStatusDue(answers: string, now: number): boolean {
  const found = statSync(statusFile(answers), { throwIfNoEntry: false });
  return !found || Math.abs(now - found.mtimeMs) > FRESH_MS;
}

/**
 * Replaces the status; the new one is on disk when this returns. Throws the error of a system call,
 * and errors of SQLite.
 */
export async function leaveStatus({ site, context, answers, reader }: StatusSource, now = new Date()): Promise<void> {
  const unfinished = join(answers, '.status.new');
  rmSync(unfinished, { force: true });
  const database = openDatabase(unfinished, false);
  try {
    database.exec('PRAGMA journal_mode = OFF; PRAGMA synchronous = FULL; BEGIN');
    database.exec(STATUS_TABLES);
    const note = database.prepare('INSERT INTO facts VALUES (?, ?)');
    note.run('at', now.toISOString());
    for (const part of STATUS_PARTS)
      try {
        await WRITERS[part]({ site, context, now, database });
      } catch (error) {
        const { message, syscall } = error as NodeJS.ErrnoException;
        if (!(error instanceof Failure) && syscall === undefined) throw error;
        note.run(`failed ${part}`, error instanceof Failure ? message : errorCode(error));
      }
    database.exec(`${STATUS_INDEXES} COMMIT`);
  } finally {
    database.close();
  }
  if (isRoot()) chownSync(unfinished, 0, reader.gid);
  chmodSync(unfinished, 0o640);
  renameSync(unfinished, statusFile(answers));
  syncFolder(answers);
}

interface Work {
  site: Site;
  context: Context;
  now: Date;
  database: Database;
}

interface Problem {
  client?: string | undefined;
  command?: string | undefined;
  kind: string;
  what: string;
  job?: string | undefined;
}

function save(database: Database, part: StatusPart, problems: readonly Problem[]): void {
  const insert = database.prepare(
    'INSERT INTO problems (part, client, command, kind, what, job) VALUES (?, ?, ?, ?, ?, ?)',
  );
  for (const { client, command, kind, what, job } of problems.slice(0, MOST_PROBLEMS))
    insert.run(part, client ?? null, command ?? null, kind, what, job ?? null);
}

const WRITERS: Record<StatusPart, (work: Work) => void | Promise<void>> = {
  certificates({ site, context, now, database }) {
    const { warnings } = readRules(site.settings) ?? {};
    const certificates = warnings?.certificates ?? CERTIFICATE_SECONDS;
    const problems = findEnding(context.etcDirectory, { certificates }, now).map(({ what, where }) => ({
      kind: 'certificate',
      what,
      // Users of the view must not see the paths of the server.
      client: where.includes('/') ? undefined : where,
    }));
    save(database, 'certificates', problems);
  },
  async expectations({ site, context, now, database }) {
    const { expectations = [] } = readRules(site.settings) ?? {};
    if (expectations.length === 0) return;
    const goldens = expectations.flatMap(({ who, command, same }) =>
      same?.as === 'job' ? [{ who, command, job: same.jobId }] : [],
    );
    database.prepare("INSERT INTO facts VALUES ('goldens', ?)").run(JSON.stringify(goldens));
    const missed = await findMissed(site, expectations, readGroups(site.settings), listClientIds(context), now);
    const problems = missed.map(({ clientId, command, kind, detail, jobId }) => ({
      client: clientId,
      command,
      kind,
      what: detail,
      job: jobId,
    }));
    save(database, 'expectations', problems);
  },
  verification({ site, database }) {
    const { verify } = readRules(site.settings)?.warnings ?? {};
    if (!verify) return;
    const { verified } = readState(site.settings);
    const fact = { at: verified?.at ?? null, every: verify.every };
    database.prepare("INSERT INTO facts VALUES ('verified', ?)").run(JSON.stringify(fact));
    const problems = (verified?.problems ?? []).map(({ what, where }) => ({
      kind: 'verify',
      what: `${where}: ${what}`,
    }));
    save(database, 'verification', problems);
  },
  rollouts({ site, database }) {
    save(
      database,
      'rollouts',
      findStopped(site).map(({ key, what }) => ({ kind: key, what })),
    );
  },
  async assignments({ site, context, now, database }) {
    const book = readBook(site.settings);
    const [groups, clientIds] = [readGroups(site.settings), listClientIds(context)];
    const insert = database.prepare('INSERT INTO assignments VALUES (?, ?, ?)');
    const insertClient = database.prepare('INSERT INTO progress VALUES (?, ?, ?, ?)');
    const all = [...book.past, ...book.active].toSorted((a, b) => Number(b.id) - Number(a.id));
    const seconds = Math.floor(now.getTime() / 1000);
    let past = 0;
    for (const assignment of new Map(all.map((one) => [one.id, one])).values()) {
      const isFollowed = book.active.includes(assignment) || ++past <= MOST_PAST;
      const targets = isFollowed ? findTargets(assignment, groups, clientIds) : [];
      const progress = isFollowed ? await readProgress(site, book, assignment, targets, seconds) : undefined;
      const states = progress ? JSON.stringify(progress.counts) : null;
      insert.run(Number(assignment.id), JSON.stringify(describeAssignment(assignment)), states);
      for (const client of progress?.clients() ?? [])
        insertClient.run(
          Number(assignment.id),
          client.clientId,
          client.state,
          JSON.stringify(describeProgress(client)),
        );
    }
  },
};
