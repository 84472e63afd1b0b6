// The checks of `webjobctl alert`: how a site deviates from its rules at this moment.
import { existsSync, statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';
import { formatBytes } from '../../cli/output.ts';
import { formatSpan } from '../../cli/spans.ts';
import { readEvents } from '../../evidence/events.ts';
import { verifySite } from '../../evidence/verify.ts';
import type { Limit, Rules, Warnings } from '../../fleet/expect.ts';
import { readGroups } from '../../ledger/groups.ts';
import type { Context } from '../clients/context.ts';
import { certificateDates, listEnding, revocationListEnd, USUAL_FILES } from '../clients/dates.ts';
import { readBook } from '../fleet/assignments.ts';
import { listClientIds } from '../fleet/clients.ts';
import { findMissed } from '../fleet/expectations.ts';
import { joinSites, tellWitness } from '../site/evidence.ts';
import { listServers, newestCheckpoint } from '../site/logs.ts';
import type { Site } from '../site/site.ts';
import { type AlertState, checkOf, type Look, type Problem } from './state.ts';

const DAY_SECONDS = 86_400;

/** The findings, and the facts about them that the next run needs. */
export interface Found extends Look {
  verified: AlertState['verified'];
}

/**
 * Makes every configured check. A check that fails is a problem itself, and does not affect the
 * results of the others.
 */
export async function findProblems(
  { site, context, rules }: { site: Site; context: Context; rules: Rules },
  state: AlertState,
  now: Date,
): Promise<Found> {
  const { warnings } = rules;
  const problems: Problem[] = [];
  const failed = new Set<string>();
  let { verified } = state;
  const check = async (name: string, find: () => Iterable<Problem> | Promise<Iterable<Problem>>): Promise<void> => {
    try {
      for (const problem of await find()) problems.push({ ...problem, key: `${name} ${problem.key}` });
    } catch (error) {
      const isExpected = error instanceof Failure || (error as NodeJS.ErrnoException).code !== undefined;
      if (!isExpected) throw error;
      failed.add(name);
      const reason = (error as Error).message;
      problems.push({ key: `check ${name}`, what: `this could not be checked: ${reason}`, where: name });
    }
  };
  await check('expect', () => findUnmet(site, context, rules, now));
  await check('certificates', () => findEnding(context.etcDirectory, warnings, now));
  await check('room', () => findFull(site, warnings));
  await check('checkpoint', () => findUnsigned(site, warnings, now));
  await check('rollout', () => (warnings.rollout ? findStopped(site) : []));
  await check('verify', () => {
    if (!warnings.verify) {
      verified = undefined;
      return [];
    }
    if (!verified || now.getTime() - verified.at >= warnings.verify.every * 1000 || verified.at > now.getTime())
      verified = { at: now.getTime(), problems: verifyNow(site, warnings.verify.since, state, now) };
    return verified.problems;
  });
  return { problems, failed, verified };
}

async function findUnmet(site: Site, context: Context, { expectations }: Rules, now: Date): Promise<Problem[]> {
  if (expectations.length === 0) return [];
  const missed = await findMissed(site, expectations, readGroups(site.settings), listClientIds(context), now);
  return missed.map(({ clientId, command, kind, detail, jobId }) => ({
    key: `${clientId} ${command} ${kind}`,
    what: `${command === '*' ? 'any job' : command}: ${detail}${jobId === undefined ? '' : `, job ${jobId}`}`,
    where: clientId,
  }));
}

/** Certificates of the site and of its clients that end soon. Throws Failure `failed`. */
export function findEnding(
  etcDirectory: string,
  { certificates: seconds }: Pick<Warnings, 'certificates'>,
  now: Date,
): Problem[] {
  if (seconds === undefined) return [];
  const ends = (what: string, where: string, until: Date): Problem[] => {
    if (until.getTime() - now.getTime() >= seconds * 1000) return [];
    // The date instead of a number of days, so that one problem always has the same text.
    const verb = until <= now ? 'ended' : 'ends';
    return [{ key: `${what} ${where}`, what: `${what} ${verb} ${until.toISOString().slice(0, 10)}`, where }];
  };
  const dated = (name: keyof typeof USUAL_FILES, what: string, read: (path: string) => Date | undefined): Problem[] => {
    const path = join(etcDirectory, USUAL_FILES[name]);
    if (!existsSync(path)) return [];
    const until = read(path);
    if (!until) throw new Failure('failed', `${path} is not ${what}`);
    return ends(what, path, until);
  };
  return [
    ...dated('SSLCertificateFile', 'the certificate of the server', (path) => certificateDates(path).until),
    ...dated('SSLCACertificateFile', 'the certificate of the CA', (path) => certificateDates(path).until),
    ...dated('SSLCARevocationFile', 'the revocation list', revocationListEnd),
    ...listEnding(etcDirectory, seconds).flatMap(({ client, until }) =>
      ends('the certificate of the client', client, until),
    ),
  ];
}

function findFull({ settings }: Site, { disk, inodes }: Warnings): Problem[] {
  const folders = new Map<number, string>();
  for (const folder of [settings.incomingDirectory, settings.logfilesDirectory]) {
    const { dev } = statSync(folder);
    if (!folders.has(dev)) folders.set(dev, folder);
  }
  return [...folders.values()].flatMap((folder): Problem[] => {
    const { bavail, blocks, bsize, ffree, files } = statfsSync(folder);
    const isLow = (limit: Limit | undefined, free: number, all: number): boolean =>
      limit !== undefined && free < ('part' in limit ? limit.part * all : limit.count);
    const room: Problem = {
      key: `disk ${folder}`,
      what: `its disk has ${formatBytes(bavail * bsize)} left`,
      where: folder,
    };
    const names: Problem = { key: `inodes ${folder}`, what: `its disk has ${ffree} inodes left`, where: folder };
    return [
      ...(isLow(disk, bavail * bsize, blocks * bsize) ? [room] : []),
      // Some file systems allocate inodes on demand and report none.
      ...(files > 0 && isLow(inodes, ffree, files) ? [names] : []),
    ];
  });
}

function findUnsigned({ settings }: Site, { checkpoint: seconds }: Warnings, now: Date): Problem[] {
  if (seconds === undefined) return [];
  return listServers(settings).flatMap((serverId): Problem[] => {
    const at = newestCheckpoint(settings, serverId);
    if (at && now.getTime() - at.getTime() < seconds * 1000) return [];
    const last = at ? `the last one is of ${at.toISOString()}` : 'there is none';
    const what = `its custody record has no checkpoint within ${formatSpan(seconds)}: ${last}`;
    return [{ key: serverId, what, where: serverId }];
  });
}

/** Rollouts that `assign advance` has paused, until someone resumes or cancels them. */
export function findStopped({ settings }: Site): Problem[] {
  const paused = readBook(settings).active.filter(({ rollout, state }) => rollout && state === 'paused');
  if (paused.length === 0) return [];
  const reasons = new Map<string, string | undefined>();
  for (const { id, reason } of readEvents(settings, 'assign-change')) reasons.set(id, reason);
  return paused.flatMap(({ id, command, rollout }): Problem[] => {
    const reason = reasons.get(id);
    if (!reason?.startsWith('stopped: ')) return [];
    const what = `the rollout of ${command} stopped in stage ${(rollout?.stage ?? 0) + 1}: ${reason.slice('stopped: '.length)}`;
    return [{ key: id, what, where: `assignment ${id}` }];
  });
}

/**
 * Verifies far enough into the past to find earlier problems again, because only then does their
 * absence mean that they are solved.
 */
function verifyNow(site: Site, span: number | undefined, { problems }: AlertState, now: Date): Problem[] {
  const begins = problems.filter((problem) => checkOf(problem) === 'verify').map(({ beganAt }) => beganAt);
  const since =
    span === undefined ? undefined : new Date(Math.min(now.getTime(), ...begins) - (span + DAY_SECONDS) * 1000);
  const found: Problem[] = [];
  try {
    for (const joined of joinSites([site]))
      for (const { kind, place, detail } of verifySite({ ...joined, since, contents: true, done: tellWitness }))
        found.push({ key: `${kind} ${place}`, what: `${kind}: ${detail}`, where: place });
  } catch (error) {
    if (error instanceof Failure || (error as NodeJS.ErrnoException).code === undefined) throw error;
    throw new Failure('failed', errorCode(error), undefined, { cause: error });
  }
  return found;
}
