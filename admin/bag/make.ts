// Makes an evidence package: a BagIt bag that is written under a temporary name and renamed when
// all of it is on disk and recorded.
import { chmodSync, lstatSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { syncFolder } from 'webjob-locker/durable';
import { countOf } from '../../cli/counts.ts';
import { Failure } from '../../cli/failure.ts';
import { requireRootsOwn, syncTree } from '../../cli/files.ts';
import { safeLine } from '../../cli/output.ts';
import { type Act, Acts } from '../../evidence/acts.ts';
import { BATCH, recordEvent } from '../../evidence/events.ts';
import type { Finding } from '../../evidence/finding.ts';
import { jobJson, lineJson } from '../../ledger/fields.ts';
import type { Job } from '../../ledger/job.ts';
import { logFolders } from '../../ledger/site.ts';
import type { Identities } from '../jobs/sealed.ts';
import { tidyFolder } from '../report/folder.ts';
import { openEvidence } from '../site/evidence.ts';
import type { Site } from '../site/site.ts';
import { findJobEntries, type JobEntries, jobIdsOf, type PlacedEntry } from './entries.ts';
import { formatInfo, type PackageInfo } from './info.ts';
import { findLogLines } from './log.ts';
import { formatIndexPage, formatJobPage, type PageFrame, type ShownJob } from './pages.ts';
import { plainPath } from './plain.ts';
import { findProgramManifest } from './program.ts';
import { addManifestKeys, addProofs, type Keys, type Proofs } from './proofs.ts';
import { formatReadme } from './readme.ts';
import { withoutOthers } from './select.ts';
import { copyUploads, findPlaces, isRemark, type Places } from './uploads.ts';
import { BagWriter } from './writer.ts';

export interface PackagePlan {
  /** The absolute path of the package, where nothing exists yet. */
  directory: string;
  jobs: readonly Job[];
  info: PackageInfo;
  keys: Keys;
  /** The identities that open sealed streams, which are then also included decrypted. */
  identities: Identities | undefined;
  version: string;
  /** Writes the package as one ZIP file, too; undefined for the directory alone. */
  zip: ((folder: string, name: string, file: string, madeAt: Date) => Promise<void>) | undefined;
  /** The person on whose behalf it is made, by default the user who runs this process. */
  by?: string;
  /** Called for every job. */
  advance: () => void;
}

export interface MadePackage {
  uploads: number;
  findings: Finding[];
  notes: string[];
  /** The number of sealed streams that are included decrypted. */
  opened: number;
  /** SHA-256 of the list that covers all other lists. */
  tagListSha256: string;
  verifierSha256: string;
}

/**
 * Makes a package, even one with findings. Throws Failure `failed`, and the error of a system call;
 * then nothing is left behind.
 */
export async function makePackage(site: Site, plan: PackagePlan): Promise<MadePackage> {
  const { directory, zip } = plan;
  const madeAt = new Date();
  const fresh = join(dirname(directory), `.${basename(directory)}.${process.pid}.new`);
  const archive = `${fresh}.zip`;
  for (const path of [directory, ...(zip ? [`${directory}.zip`] : [])])
    if (lstatSync(path, { throwIfNoEntry: false }))
      throw new Failure('failed', `${path} already exists`, 'choose another directory: --out');
  tidyFolder(directory);
  const umask = process.umask(0o077);
  try {
    mkdirSync(fresh);
    requireRootsOwn(fresh);
    const made = await fillPackage(site, plan, fresh, madeAt);
    syncTree(fresh);
    await zip?.(fresh, basename(directory), archive, madeAt);
    record(site, plan, made);
    renameSync(fresh, directory);
    if (zip) renameSync(archive, `${directory}.zip`);
    syncFolder(dirname(directory));
    return made;
  } finally {
    process.umask(umask);
    for (const path of [fresh, archive]) rmSync(path, { recursive: true, force: true });
  }
}

/**
 * Records the package before it gets its name, so that nothing is ever handed over without a
 * record.
 */
function record(
  { settings }: Site,
  { directory, jobs, info, by }: PackagePlan,
  { findings, opened, tagListSha256 }: MadePackage,
): void {
  const ids = jobs.map(({ jobId = '-' }) => jobId);
  for (let from = 0; from < ids.length; from += BATCH) {
    const batch = ids.slice(from, from + BATCH);
    const facts = { directory, jobs: batch, ...info, findings: findings.length };
    const rest = { opened: opened > 0 ? opened : undefined, tagListSha256 };
    recordEvent(settings, { event: 'evidence', ...facts, ...rest }, by);
  }
}

/** The files and facts of one job. */
type Gathered = ShownJob & { problems: readonly Finding[]; uploadCount: number; openedCount: number };

async function fillPackage(site: Site, plan: PackagePlan, folder: string, madeAt: Date): Promise<MadePackage> {
  const { jobs, info, version } = plan;
  const bag = new BagWriter(folder);
  const frame: PageFrame = { siteName: site.settings.serverId, madeAt, version, useGmt: site.settings.useGMT };
  const evidence = openEvidence(site, { watch: jobIdsOf(jobs) });
  try {
    const places = await findPlaces(site, evidence, jobs, plan.identities);
    const entriesOf = findJobEntries(site, jobs);
    const shown = new Map(jobs.map((job) => [job, withoutOthers(job)]));
    const linesOf = await findLogLines(
      site,
      [...shown.values()].map(({ job }) => job),
    );
    const acts = new Acts(logFolders(site));
    const all = new Set(jobs.flatMap((job) => entriesOf(job).shown));
    const proofs = addProofs(bag, site, [...all], plan.keys);
    const gathered: Gathered[] = [];
    for (const [index, job] of jobs.entries()) {
      const { job: own, left } = shown.get(job) ?? { job, left: 0 };
      const notes = acts.of({ jobId: job.jobId }).filter(({ event }) => event === 'note');
      const given = { job: own, lines: linesOf(own), left, entries: entriesOf(job), number: index + 1, acts: notes };
      const one = await addJob(bag, site, places, given, { proofs, keys: plan.keys });
      bag.addText(one.page, formatJobPage(one, frame));
      gathered.push({ ...one, files: [] });
      plan.advance();
    }
    const findings = [...evidence.findFaults(), ...proofs.findings, ...gathered.flatMap(({ problems }) => problems)];
    const notes = [
      ...proofs.notes,
      ...gathered.flatMap(({ folder, notes }) => notes.map((note) => `${folder}: ${note}`)),
    ];
    const tagListSha256 = await addTags(bag, folder, plan, { gathered, findings, notes, frame, info });
    const uploads = gathered.reduce((sum, { uploadCount }) => sum + uploadCount, 0);
    const opened = gathered.reduce((sum, { openedCount }) => sum + openedCount, 0);
    return { uploads, findings, notes, opened, tagListSha256, verifierSha256: bag.digestOf('VERIFY.sh') };
  } finally {
    evidence.close();
  }
}

interface Given {
  /** The job without requests by others. */
  job: Job;
  lines: readonly string[];
  /** The number of requests by others. */
  left: number;
  entries: JobEntries;
  number: number;
  /** The notes on the job. */
  acts: readonly Act[];
}

async function addJob(
  bag: BagWriter,
  site: Site,
  places: Places,
  { job, lines, left, entries, number, acts }: Given,
  { proofs, keys }: { proofs: Proofs; keys: Keys },
): Promise<Gathered> {
  const slug = (job.jobId ?? 'none').replace(/[^A-Za-z0-9_-]/g, '_').slice(0, 80);
  const name = `${String(number).padStart(4, '0')}-${slug}`;
  const folder = `data/jobs/${name}`;
  const files: string[] = [];
  const add = (file: string, content: string | Buffer): void => {
    bag.addText(`${folder}/${file}`, content);
    files.push(`${folder}/${file}`);
  };
  const { uploads, missing } = await copyUploads(bag, site, places, { job, entries, folder });
  const notes: string[] = [];
  const requests = job.attempts.map((line) => lineJson(site, line));
  add('job.json', `${JSON.stringify({ ...jobJson(site, job), attempts: requests }, undefined, 1)}\n`);
  if (lines.length > 0) add('log.txt', lines.map((line) => `${line}\n`).join(''));
  const addEntry = (entry: PlacedEntry, place: string): void => {
    add(`${place}.json`, Buffer.concat([entry.text, Buffer.from('\n')]));
    const proof = proofs.proved.get(entry);
    if (proof) add(`${place}.tlog-proof`, proof.text);
    else notes.push(`${place}.json: no checkpoint covers it`);
  };
  for (const { folder: place, entry, deposit, verdict, opened, unopened } of uploads) {
    const below = place.slice(folder.length + 1);
    for (const stream of ['out', 'err', 'env', 'rdy'] as const)
      for (const path of [`${place}/${stream}`, plainPath(`${place}/${stream}`)]) if (bag.has(path)) files.push(path);
    if (entry) addEntry(entry, `${below}/custody`);
    else if (deposit)
      notes.push(`${below}: it was compared with the custody record, whose entry names other jobs and is left out`);
    for (const stream of opened)
      notes.push(`${plainPath(`${below}/${stream}`)}: opened when the package was made; only age -d proves that`);
    for (const why of unopened) notes.push(`${below}: not opened: ${why}`);
    for (const { kind, detail } of verdict.findings.filter(isRemark)) notes.push(`${below}: ${kind}: ${detail}`);
  }
  const confirming = new Set(uploads.map(({ entry }) => entry));
  for (const [index, entry] of entries.shown.filter((one) => !confirming.has(one)).entries())
    addEntry(entry, `record-${index + 1}`);
  notes.push(...describeLeft(left, entries, uploads.length > 0));
  const problems = [...uploads.flatMap(({ verdict }) => verdict.findings.filter((one) => !isRemark(one))), ...missing];
  addManifest({ bag, add, keys, notes, problems }, site, job, folder);
  return {
    job,
    acts,
    uploads,
    folder,
    files,
    notes,
    problems,
    page: `pages/${name}.html`,
    missing: missing.map(({ place }) => place),
    findings: problems.map(formatFinding),
    uploadCount: uploads.length,
    openedCount: uploads.reduce((sum, { opened }) => sum + opened.length, 0),
  };
}

function describeLeft(left: number, { hidden }: JobEntries, hasUploads: boolean): string[] {
  const requests = countOf(left, 'request');
  return [
    ...(left > 0 ? [`${requests} by others in the name of the client: omitted from the log`] : []),
    ...(hidden.length > 0 ? [`${hidden.length} entries of the custody record name other jobs, and are left out`] : []),
    ...(hasUploads ? [] : ['it has no upload']),
  ];
}

function addManifest(
  to: {
    bag: BagWriter;
    add: (file: string, content: Buffer) => void;
    keys: Keys;
    notes: string[];
    problems: Finding[];
  },
  site: Site,
  job: Job,
  folder: string,
): void {
  const manifest = findProgramManifest(site, job);
  if (typeof manifest === 'string') {
    to.notes.push(`no manifest of the program: ${manifest}`);
    return;
  }
  to.add('program.manifest', manifest.bytes);
  const wrong = addManifestKeys(to.bag, manifest, to.keys);
  if (wrong?.isWrong)
    to.problems.push({ kind: 'manifest-wrong', place: `${folder}/program.manifest`, detail: wrong.why });
  else if (wrong) to.notes.push(`program.manifest: ${wrong.why}`);
}

function formatFinding({ kind, place, detail }: Finding): string {
  return safeLine(`${kind} ${place}: ${detail}`);
}

/** Adds the tag files. Returns the SHA-256 of the list that covers them. */
async function addTags(
  bag: BagWriter,
  folder: string,
  { jobs, info, version }: PackagePlan,
  {
    gathered,
    findings,
    notes,
    frame,
  }: {
    gathered: readonly Gathered[];
    findings: readonly Finding[];
    notes: readonly string[];
    frame: PageFrame;
    info: PackageInfo;
  },
): Promise<string> {
  const lines = (texts: readonly string[]): string => texts.map((text) => `${safeLine(text)}\n`).join('');
  if (findings.length > 0) bag.addText('data/findings.txt', lines(findings.map(formatFinding)));
  if (notes.length > 0) bag.addText('data/notes.txt', lines(notes));
  const problems = findings.map(formatFinding);
  bag.addText('index.html', formatIndexPage(gathered, info, problems, frame));
  const has = (end: string): boolean =>
    bag.paths().some((path) => path.startsWith('data/checkpoints/') && path.endsWith(end));
  const contents = { jobs: jobs.length, findings: findings.length, notes: notes.length };
  const made = { madeAt: frame.madeAt, version };
  const isOpened = gathered.some(({ openedCount }) => openedCount > 0);
  const marks = { hasCheckpoints: has('.checkpoint'), hasStamps: has('.tsr'), isOpened };
  bag.addText('README.txt', formatReadme(info, { ...contents, ...marks }, made));
  // This module exists only in the built program.
  const { default: verifier } = await import('./verify.sh');
  bag.addText('VERIFY.sh', verifier);
  chmodSync(join(folder, 'VERIFY.sh'), 0o700);
  bag.addText('bag-info.txt', formatInfo(info, { site: frame.siteName, ...made, oxum: bag.oxum, jobs: jobs.length }));
  return bag.finish();
}
