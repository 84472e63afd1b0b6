// What is known of a job, made of the lines of the log and the files of the locker: its state, when, and how the run ended.
import { EXTENSIONS, type Group, statGroupFile } from 'webjob-locker';
import { isSuccess, type LogLine } from 'webjob-protocol';
import type { PackedGroup } from '../../archive/manifest.ts';
import type { Pack } from '../../archive/packs.ts';
import { Failure } from '../failure.ts';
import type { Job } from '../job.ts';
import { warn } from '../output.ts';
import type { Site } from '../site.ts';
import { describeEnding, type Ending } from './ending.ts';
import { instantOf } from './log.ts';
import type { NameFacts } from './names.ts';
import type { Packed } from './packed.ts';
import { packedStreams, readPackedRecord } from './streams.ts';
import type { Uploads } from './uploads.ts';

/** A job that has ended, as the log tells of it. */
export interface Ended {
  get: LogLine | undefined;
  puts: LogLine[];
}

/** A group that no PUT of the log was found to have made. */
export interface Stray extends NameFacts {
  group: Group;
  at: Date;
  jobId: string | undefined;
  /** The GET without an answer that its job id belongs to. */
  get: LogLine | undefined;
}

/** 456, 500 and 551 leave what arrived under its name. */
const BREAKS_OFF = new Set([456, 500, 551]);

export function describeEnded(site: Site, uploads: Uploads, { get, puts }: Ended): Job {
  const put = puts.findLast(({ status }) => isSuccess(status)) ?? puts.at(-1);
  const found = uploads.findComplete(puts.filter(({ status }) => status === 200));
  if (found.length > 1) {
    const times = new Map(found.map((group) => [group, Number(lastChange(site, group))]));
    found.sort((a, b) => (times.get(a) ?? 0) - (times.get(b) ?? 0));
  }
  const broken = put && found.length === 0 && BREAKS_OFF.has(put.status) ? uploads.findBroken(put) : undefined;
  const job = { ...describeLines(site, get, put), group: found.at(-1) ?? broken, uploads: found };
  if (broken) return { ...job, state: 'incomplete' };
  return job.group ? addEnding(uploads, job) : job;
}

/** What the log alone says. */
export function describeLines(site: Site, get: LogLine | undefined, put: LogLine | undefined): Job {
  const last = put ?? get;
  return {
    ...{ jobId: last?.jobId, clientId: last?.clientId, command: last?.fileName },
    state: last && !isSuccess(last.status) ? 'refused' : put ? 'done' : 'got',
    at: last ? instantOf(last, site) : new Date(0),
    ...{
      get,
      put,
      group: undefined,
      uploads: [],
      packed: undefined,
      exitCode: undefined,
      signal: undefined,
      clockSkew: undefined,
    },
  };
}

export function describeStray(uploads: Uploads, { group, at, jobId, clientId, command, get }: Stray): Job {
  const isComplete = group.has.has('rdy');
  const job: Job = {
    ...{ jobId, clientId, command, at, get, put: undefined, group, uploads: isComplete ? [group] : [] },
    ...{ packed: undefined, state: 'incomplete', exitCode: undefined, signal: undefined, clockSkew: undefined },
  };
  if (!isComplete) return job;
  return get ? addEnding(uploads, job) : { ...addEnding(uploads, job), state: 'orphan' };
}

/** A job whose upload is in a pack. */
export async function describePacked(job: Job, { pack, group }: Packed): Promise<Job> {
  const ending = group.ending ?? (await readPackedEnding(pack, group));
  return setEnding({ ...job, packed: { pack: pack.name, name: group.name } }, ending);
}

/** A record that cannot be read tells of no good ending. */
async function readPackedEnding(pack: Pack, group: PackedGroup): Promise<Ending> {
  try {
    return describeEnding(await readPackedRecord(packedStreams(pack, group)));
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    warn(error.message);
    return { isGood: false, exitCode: undefined, signal: undefined, clockSkew: undefined };
  }
}

/** One in a pack that no PUT of the log was found to have made. */
export async function describePackedStray(
  site: Site,
  packed: Packed,
  facts: Pick<Job, 'jobId' | 'clientId' | 'command'>,
  get: LogLine | undefined,
): Promise<Job> {
  const at = new Date(packed.group.at);
  const job: Job = { ...describeLines(site, get, undefined), ...facts, at };
  const described = await describePacked(job, packed);
  return get ? described : { ...described, state: 'orphan' };
}

/** When a group was announced, or while it is not, when it changed last; undefined when it is gone. A group of which no more than the name is
 * known is complete. */
export function lastChange(site: Site, group: Pick<Group, 'name'> & Partial<Group>): Date | undefined {
  const extensions = !group.has || group.has.has('rdy') ? (['rdy'] as const) : EXTENSIONS;
  const times = extensions.flatMap(
    (extension) => statGroupFile(site.settings.incomingDirectory, group.name, extension)?.mtimeMs ?? [],
  );
  return times.length > 0 ? new Date(Math.max(...times)) : undefined;
}

function addEnding(uploads: Uploads, job: Job): Job {
  const ending = job.group && uploads.findEnding(job.group);
  return ending ? setEnding(job, ending) : { ...job, state: 'done' };
}

function setEnding(job: Job, { isGood, exitCode, signal, clockSkew }: Ending): Job {
  return { ...job, state: isGood ? 'done' : 'failed', exitCode, signal, clockSkew };
}
