// Carries out acts that users of the view requested, with the code of the commands of the same
// names.
import { chmodSync, chownSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { countOf } from '../../cli/counts.ts';
import { Failure } from '../../cli/failure.ts';
import { recordEvent } from '../../evidence/events.ts';
import { verifyJob } from '../../evidence/verify.ts';
import { makePackage } from '../bag/make.ts';
import type { Keys } from '../bag/proofs.ts';
import { selectJobs } from '../bag/select.ts';
import { setState } from '../fleet/assigning.ts';
import { endHold, setHold } from '../retention/hold-change.ts';
import { joinSites } from '../site/evidence.ts';
import type { Site } from '../site/site.ts';
import { withSiteLock } from '../site/site-lock.ts';
import { isRoot, type User } from '../site/users.ts';
import { packageFile } from './answers.ts';
import { addNote } from './note.ts';
import type { ActRequest } from './request.ts';

/** The context in which an act is carried out. */
export interface ActPlace {
  site: Site;
  /** The directory of answers, which receives packages too. */
  answers: string;
  /** The owner whose group may read a package. */
  reader: Pick<User, 'gid'>;
  keys: Keys;
  version: string;
}

/**
 * Carries out a request; returns the result in words. Throws Failure, and the error of a system
 * call.
 */
export async function carryOut(id: string, request: ActRequest, place: ActPlace): Promise<string> {
  const { act, job = '', assignment = '', client, user, text = '', stream = 'out' } = request;
  const { settings } = place.site;
  // Only the view vouches for this user name.
  const by = `${user} (webjob-view)`;
  switch (act) {
    case 'verify':
      return verify(place.site, job, by);
    case 'hold':
    case 'release': {
      const hold = { kind: 'job', id: job, reason: text, by, at: new Date().toISOString() } as const;
      if (act === 'hold') return (await setHold(settings, hold)) ? 'on hold' : 'was already on hold';
      return (await endHold(settings, hold)) ? 'no longer on hold' : 'was not on hold';
    }
    case 'note':
      addNote(settings, job, text, by);
      return 'on record';
    case 'download':
      recordEvent(settings, { event: 'download', job, client, stream }, by);
      return `.${stream} may be taken`;
    case 'package':
      return makeEvidence(id, job, client, { user, by }, place);
    case 'pause':
      await setState(settings, assignment, 'paused', text, by);
      return 'paused';
    case 'cancel':
      await setState(settings, assignment, 'cancelled', text, by);
      return 'cancelled';
  }
}

function verify(site: Site, job: string, by: string): string {
  const [joined] = joinSites([site]);
  if (!joined) throw new Failure('failed', 'the evidence locker is missing');
  const scope = { ...joined, contents: true, since: undefined, touchedSince: undefined, sample: undefined };
  const found = [...verifyJob(scope, job)];
  const [first] = found;
  const more = found.length > 1 ? `, and ${found.length - 1} more` : '';
  const words = first ? `${first.kind} ${first.place}: ${first.detail}${more}`.slice(0, 1000) : 'verified';
  recordEvent(site.settings, { event: 'verify', job, words, findings: found.length }, by);
  return words;
}

async function makeEvidence(
  id: string,
  job: string,
  client: string | undefined,
  { user, by }: { user: string; by: string },
  { site, answers, reader, keys, version }: ActPlace,
): Promise<string> {
  const jobs = await selectJobs(site, { jobs: [job], client });
  // An id may be the beginning of another one.
  if (jobs.some(({ jobId }) => jobId !== job)) throw new Failure('findings', `job ${job} not found`);
  const directory = join(answers, id);
  const info = { caseNumber: undefined, examiner: user, description: undefined };
  const { zipFolder } = await import('../bag/zip.ts');
  // Acts have no identity that could open sealed streams.
  const plan = { directory, jobs, info, keys, identities: undefined, version, zip: zipFolder, advance: () => {}, by };
  const { findings, tagListSha256 } = await withSiteLock(site.settings, 'keep', () => makePackage(site, plan));
  rmSync(directory, { recursive: true });
  const file = packageFile(answers, id);
  if (isRoot()) chownSync(file, 0, reader.gid);
  chmodSync(file, 0o640);
  const count = countOf(findings.length, 'finding');
  return `made with ${count}; SHA-256 of tagmanifest-sha256.txt: ${tagListSha256}`;
}
