// Compares a client's journal (docs/protocol.md, section 9) with the evidence of a site. The
// client's own record of its uploads shows when a server acknowledged an upload and then dropped or
// changed it.
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { Chain, findGroup, type Link, STREAMS, type StreamName } from 'webjob-locker';
import { Failure } from '../cli/failure.ts';
import { Evidence, type EvidenceSite } from './evidence.ts';
import type { Finding } from './finding.ts';
import type { Deposit } from './records.ts';
import { findUnrecorded } from './verify.ts';

export interface JournalSummary {
  /** The number of lines that report a delivery. */
  deliveries: number;
  /** The number of runs that a server said it had stored. */
  acknowledged: number;
  /**
   * The number of acknowledged runs that are stored unchanged, and of those that webjobctl removed
   * according to the custody record.
   */
  kept: number;
  removed: number;
  findings: number;
}

/** A run that a server acknowledged. */
interface Run {
  jobId: string;
  clientId: string;
  fileName: string;
  time: string;
  status: number | undefined;
  sha256: Record<StreamName, string>;
}

/** The possible fates of a run, best first. */
const FATES = ['kept', 'changed', 'removed', 'missing'] as const;
type Fate = { fate: (typeof FATES)[number]; differing: readonly StreamName[] };
const MISSING: Fate = { fate: 'missing', differing: [] };

/**
 * Looks for every acknowledged run of a journal in the lockers and archives of these sites.
 *
 * @param path the journal, as the client wrote it
 * @throws Failure `failed` for a journal that cannot be read, and the error of a system call on a
 * locker
 */
export function* verifyJournal(sites: readonly EvidenceSite[], path: string): Generator<Finding, JournalSummary> {
  const { runs, deliveries, faults } = readJournal(path);
  const summary = { deliveries, acknowledged: runs.length, kept: 0, removed: 0, findings: 0 };
  const report = function* (findings: readonly Finding[]): Generator<Finding> {
    summary.findings += findings.length;
    yield* findings;
  };
  yield* report(faults);
  const fates = new Map<Run, Fate>();
  for (const site of sites) findFates(site, runs, fates);
  for (const run of runs) {
    const { fate, differing } = fates.get(run) ?? MISSING;
    if (fate === 'kept' || fate === 'removed') summary[fate]++;
    else yield* report([describe(run, fate, differing)]);
  }
  return summary;
}

function describe(run: Run, fate: 'changed' | 'missing', differing: readonly StreamName[]): Finding {
  const { jobId, clientId, fileName, time, status } = run;
  const sent = `${clientId} sent ${fileName}, and the server acknowledged it with ${status ?? 'no status'} at ${time}`;
  if (fate === 'missing') return { kind: 'journal-missing', place: jobId, detail: `${sent}: it is missing` };
  const streams = differing.map((stream) => `.${stream}`).join(' and ');
  return {
    kind: 'journal-changed',
    place: jobId,
    detail: `${sent}: ${streams} ${differing.length > 1 ? 'are' : 'is'} not what it sent`,
  };
}

/** Records for each run the best result that a site gives. */
function findFates(site: EvidenceSite, runs: readonly Run[], fates: Map<Run, Fate>): void {
  const jobIds = new Set(runs.map(({ jobId }) => jobId));
  const evidence = new Evidence(site, { watch: (jobId) => jobIds.has(jobId) });
  try {
    const { watched } = evidence.records;
    const isKnown = new Set([...watched.values()].map(({ jobId }) => jobId));
    if (runs.some(({ jobId }) => !isKnown.has(jobId)))
      findUnrecorded(site, evidence, (jobId) => jobIds.has(jobId) && !isKnown.has(jobId));
    const uploads = new Map<string, [name: string, pack: string | undefined][]>();
    for (const [name, { jobId, pack }] of watched) uploads.set(jobId, [...(uploads.get(jobId) ?? []), [name, pack]]);
    for (const run of runs)
      for (const [name, pack] of uploads.get(run.jobId) ?? []) {
        const found = judge(evidence, run, name, pack);
        const before = fates.get(run);
        if (!before || FATES.indexOf(found.fate) < FATES.indexOf(before.fate)) fates.set(run, found);
      }
  } finally {
    evidence.close();
  }
}

function judge(evidence: Evidence, run: Run, name: string, pack: string | undefined): Fate {
  const { records, site } = evidence;
  const isThere = findGroup(site.incomingDirectory, name)?.has.has('rdy') === true;
  const isPacked = pack !== undefined && records.packs().some((known) => known.name === pack);
  if (!isThere && !isPacked) return { fate: records.isExpected(name) ? 'missing' : 'removed', differing: [] };
  const { streams } = isThere
    ? evidence.judge(name, { contents: true, digests: true })
    : evidence.judgePack(pack ?? '', new Set([name]))(name);
  const differing = STREAMS.filter((stream) => streams[stream].sha256 !== run.sha256[stream]);
  if (STREAMS.every((stream) => streams[stream].sha256 === undefined)) return MISSING;
  if (differing.length === 0 || isAsReceived(records.find(name), run, streams)) return { fate: 'kept', differing: [] };
  return { fate: 'changed', differing };
}

/**
 * Whether, according to the custody record, a PutHook changed the upload and nothing has changed it
 * since.
 */
function isAsReceived(
  deposit: Deposit | undefined,
  { sha256 }: Run,
  streams: Record<StreamName, { sha256: string | undefined }>,
): boolean {
  const received = deposit?.received;
  return (
    received !== undefined &&
    STREAMS.every((name) => received[name] === sha256[name] && streams[name].sha256 === deposit?.sha256[name])
  );
}

function readJournal(path: string): { runs: Run[]; deliveries: number; faults: Finding[] } {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw new Failure('failed', `the journal ${path} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
  try {
    if (!fstatSync(fd).isFile()) throw new Failure('failed', `the journal ${path} is not a file`);
    const runs = new Map<string, Run>();
    let deliveries = 0;
    const chain = new Chain(fd);
    const faults: Finding[] = [];
    for (const link of chain.walk()) {
      if (link.fault) faults.push(describeFault(path, link));
      if (link.facts?.event !== 'put' || link.fault === 'edited') continue;
      deliveries++;
      const run = readRun(link.facts);
      // A client sends a job again when it did not receive the answer.
      if (run) runs.set(`${run.jobId} ${run.sha256.env}`, run);
    }
    faults.push(...chain.findTorn().map((link) => describeFault(path, link)));
    if (deliveries === 0 && faults.length === 0) throw new Failure('failed', `${path} is not the journal of a client`);
    return { runs: [...runs.values()], deliveries, faults };
  } finally {
    closeSync(fd);
  }
}

function describeFault(path: string, { from, to, fault }: Pick<Link, 'from' | 'to' | 'fault'>): Finding {
  const why = {
    edited: 'was changed',
    broken: 'does not follow from what precedes it',
    torn: 'is not a line of a journal',
  };
  return {
    kind: 'journal-broken',
    place: path,
    detail: `the line in bytes ${from} to ${to} ${why[fault ?? 'torn']}`,
  };
}

/**
 * Reads the run from a delivery; undefined when no server acknowledged it, or when servers do not
 * store the output of such a run.
 */
function readRun(facts: Record<string, unknown>): Run | undefined {
  const { jobId, clientId, fileName, time, status, sha256, isAcknowledged, runType } = facts as Partial<Run> & {
    isAcknowledged?: unknown;
    runType?: unknown;
  };
  if (isAcknowledged !== true || runType === 'linktest') return undefined;
  const isWhole = [jobId, clientId, fileName, time, ...STREAMS.map((name) => sha256?.[name])].every(
    (text) => typeof text === 'string',
  );
  if (!isWhole || !jobId || !clientId || !fileName || !time || !sha256) return undefined;
  return { jobId, clientId, fileName, time, status: typeof status === 'number' ? status : undefined, sha256 };
}
