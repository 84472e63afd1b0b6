// Judges the uploads of a site, for every command that needs a verdict: verify, report, show.
import { realpathSync, statSync } from 'node:fs';
import { type CustodyFile, findGroup, listCustodyFiles, statGroupFile } from 'webjob-locker';
import { WRITER } from './events.ts';
import type { Finding } from './finding.ts';
import { MetNames } from './met-names.ts';
import { isOther, judgePack } from './packs.ts';
import { CustodyRecords, type Deposit, type Known, type OldBook, type RecordsOptions } from './records.ts';
import type { ResultKeys } from './result-keys.ts';
import { type Care, checkUpload, findDiffering, type Owners, type UploadReport } from './upload.ts';
import type { Verdict } from './verdict.ts';
import { Witness, type WitnessState } from './witness.ts';

/** An evidence locker, and the servers that store into it. */
export interface EvidenceSite {
  incomingDirectory: string;
  servers: readonly EvidenceServer[];
  /** The directory of the archives; undefined when archives are not to be checked. */
  packsFolder?: string | undefined;
  /** The result keys of the site's clients; undefined when signatures are not to be checked. */
  resultKeys?: ResultKeys | undefined;
}

export interface EvidenceServer {
  logfilesDirectory: string;
  /** The server whose custody record must exist; undefined with EnableCustody=N. */
  serverId?: string | undefined;
  /**
   * The directory of root's witness of the records in this directory; undefined without a witness.
   */
  witnessFolder?: string | undefined;
}

export interface EvidenceOptions extends Pick<RecordsOptions, 'share' | 'watch' | 'mostNames'> {
  /**
   * Only newer events are wanted, so older records that root saw and that are untouched since need
   * not be read.
   */
  since?: Date | undefined;
  /** Whether only the current custody records count, whatever root saw before. */
  isNow?: boolean;
  /**
   * Only these uploads and this job are wanted: the records are searched for them instead of
   * walked, and only files that were touched are compared with the witness.
   */
  only?: Wanted | undefined;
}

/** The uploads and the job to search for. */
export interface Wanted {
  names: readonly string[];
  jobId: string | undefined;
  /** When the job began, in milliseconds; undefined when unknown. */
  since?: number | undefined;
  /**
   * When the job ended, in milliseconds: much later records are read only when some of these
   * uploads are missing or not on record.
   */
  until?: number | undefined;
}

/** The verdict on an upload in the locker. */
export interface Judged extends UploadReport {
  /** Whether the upload is older than the custody record: only its run record confirms it. */
  isOlder: boolean;
}

const OLDER = 'it is older than the custody record, and only its run record confirms it';

/** How much a server's clock may have been changed between a job id and its custody record. */
const CLOCK_MS = 3_600_000;
/**
 * The margin that is tried first: nearly all records are within it, and the search takes a fraction
 * of the time.
 */
const NEAR_MS = 60_000;

/** The maximum number of checks of an upload that changes during the check. */
const LOOKS = 5;

/** The evidence of a site. The custody records stay open until close(). */
export class Evidence {
  readonly site: EvidenceSite;
  readonly owners: Owners;
  /**
   * Whether no record had to be read, because nothing was recorded since the requested time and no
   * file was touched since root saw it.
   */
  readonly isIdle: boolean;
  readonly witnesses: readonly PlacedWitness[];
  readonly #cut: Finding[] = [];
  readonly #options: EvidenceOptions;
  readonly #met: MetNames[] = [];
  #records: CustodyRecords | undefined;

  /**
   * Reads the custody records, and unless `isNow`, also the witness's copies of records that differ
   * from what root saw before. Throws the error of a system call on the locker or the logs.
   */
  constructor(site: EvidenceSite, options: EvidenceOptions = {}) {
    this.site = site;
    this.owners = new Set([0, statSync(site.incomingDirectory).uid]);
    this.#options = options;
    this.witnesses = openWitnesses(site);
    this.isIdle = options.since !== undefined && this.#isIdle(options.since.getTime());
    if (!this.isIdle) this.#records = this.#read();
  }

  /** The custody records, read at the first use. */
  get records(): CustodyRecords {
    this.#records ??= this.#read();
    return this.#records;
  }

  #isIdle(instant: number): boolean {
    const isEach = this.witnesses.length === folders(this.site).length;
    return (
      isEach &&
      this.witnesses.every(({ witness, logs }) => {
        const files = listCustodyFiles(logs).map(({ file }) => file);
        return files.length > 0 && witness.isIdle(logs, files, instant);
      })
    );
  }

  #read(): CustodyRecords {
    const old: OldBook[] = [];
    for (const { witness, logs } of this.witnesses)
      for (const finding of witness.compare(logs, (file) => !this.#isKnown(witness, logs, file))) {
        this.#cut.push(finding);
        if (!this.#options.isNow) old.push({ file: finding.place, fd: witness.openCopy(logs, finding.place) });
      }
    const skip = (folder: string, { file, serverId }: CustodyFile, isLast: boolean): boolean =>
      !isLast &&
      serverId !== WRITER &&
      this.witnesses.some(({ witness, logs }) => logs === folder && this.#isKnown(witness, logs, file));
    const { only, since, ...options } = this.#options;
    if (only) return this.#search(only, old);
    const resume = (folder: string, { file }: CustodyFile): Known | undefined =>
      since === undefined
        ? undefined
        : this.witnesses.find(({ logs }) => logs === folder)?.witness.knownUpTo(folder, file, since.getTime());
    // Older segments may contain records that were cut from a newer one, so all must be read.
    const unread = old.length === 0 ? { skip, resume } : {};
    const records = new CustodyRecords(folders(this.site), { ...options, old, ...unread });
    try {
      records.refresh();
    } catch (error) {
      records.close();
      throw error;
    }
    return records;
  }

  /**
   * Searches the records for the wanted names and job id. Both are needed: a record that removes an
   * upload has its name but not its job id.
   */
  #search(wanted: Wanted, old: OldBook[], marginMs = NEAR_MS): CustodyRecords {
    const { names, jobId, since, until } = wanted;
    const watch = (other: string): boolean => other === jobId;
    const only = [...names, ...(jobId === undefined ? [] : [jobId])];
    // The witness's older copies may contain records that are missing now, so all records are
    // searched.
    const margin = until === undefined ? CLOCK_MS : marginMs;
    const from = since === undefined || old.length > 0 ? undefined : since - margin;
    const to = from === undefined || until === undefined ? undefined : until + margin;
    const records = new CustodyRecords(folders(this.site), { old, only, watch, from, to });
    records.refresh();
    const more = [...records.watched.keys()].filter((name) => !names.includes(name));
    if (from !== undefined ? this.#areThere(records, [...names, ...more]) : more.length === 0) return records;
    records.close(old);
    const all = { names: [...names, ...more], jobId };
    return margin < CLOCK_MS && from !== undefined
      ? this.#search({ ...all, since, until }, old, CLOCK_MS)
      : this.#search(all, old);
  }

  /**
   * Whether all of these uploads are present and recorded; then no older record can add anything.
   */
  #areThere(records: CustodyRecords, names: readonly string[]): boolean {
    const isThere = (name: string): boolean => findGroup(this.site.incomingDirectory, name)?.has.has('rdy') === true;
    return names.length > 0 && names.every((name) => records.isExpected(name) && isThere(name));
  }

  /** Whether a segment is untouched since root saw it, and older than the wanted uploads. */
  #isKnown(witness: Witness, logs: string, file: string): boolean {
    const { since, only } = this.#options;
    if (since === undefined && only === undefined) return false;
    const seen = witness.untouched(logs, file);
    return seen !== undefined && (since === undefined || seen.newest < since.getTime());
  }

  /** The state of the witness; with several, the least informative state. */
  get witnessState(): WitnessState {
    const states = this.witnesses.map(({ witness }) => witness.state);
    return (['untrusted', 'unreadable', 'none', 'asked'] as const).find((state) => states.includes(state)) ?? 'none';
  }

  /**
   * Findings on the custody records themselves, which lack entries that root saw before, or were
   * changed.
   */
  findFaults(): Finding[] {
    return [...this.#cut, ...(this.#records?.findFaults() ?? [])];
  }

  /** The custody records that no longer match what root saw before. */
  cut(): string[] {
    return this.#cut.map(({ place }) => place);
  }

  /**
   * The upload names that root has seen in a directory of the locker; undefined without a witness
   * that can be trusted.
   */
  metNames(folder: string): MetNames | undefined {
    const witness = this.witnesses[0]?.witness;
    if (witness?.state !== 'asked') return undefined;
    const met = new MetNames(witness.folder, this.site.incomingDirectory, folder);
    this.#met.push(met);
    return met;
  }

  /**
   * Saves in the witness which records were found sound and which uploads were seen. Only for root,
   * one process at a time. Throws the error of a system call.
   */
  tellWitness(isAdopted = false): void {
    for (const met of this.#met) met.save();
    if (!this.#records) return;
    for (const { witness, logs } of this.witnesses)
      if (witness.state === 'asked' || witness.state === 'none')
        witness.update(
          logs,
          this.records.sound().filter(({ folder }) => folder === logs),
          isAdopted,
        );
  }

  /**
   * Judges an upload in the locker. A finding counts only if it persists, because the server may be
   * changing the upload.
   */
  judge(name: string, care: Care): Judged {
    let judged = this.#look(name, care);
    for (let look = 1; judged.findings.length > 0 && look < LOOKS; look++) {
      const before = JSON.stringify(judged.findings);
      this.records.refresh();
      judged = this.#look(name, care);
      if (JSON.stringify(judged.findings) === before) break;
    }
    return judged;
  }

  #look(name: string, care: Care): Judged {
    const deposit = this.records.find(name);
    const { incomingDirectory, resultKeys: keys } = this.site;
    const report = checkUpload(incomingDirectory, name, { deposit, owners: this.owners, keys }, care);
    const { announcedAt, findings } = report;
    const isUnrecorded = announcedAt !== undefined && deposit === undefined;
    const isDue = announcedAt !== undefined && this.records.covers(announcedAt);
    const isOlder = isUnrecorded && !isDue && this.records.hasBegun;
    if (isUnrecorded && isDue)
      findings.push({ kind: 'unrecorded', place: name, detail: 'the custody record does not have it' });
    if (isOlder) findings.push({ kind: 'older', place: name, detail: OLDER });
    const differing = announcedAt === undefined ? undefined : findDiffering(name);
    if (differing) findings.push(differing);
    const packed = announcedAt === undefined || !deposit ? undefined : this.#findPacked(name, deposit);
    if (packed) findings.push(packed);
    return { ...report, isOlder };
  }

  /** The finding on an upload whose name an archive also contains. */
  #findPacked(name: string, deposit: Deposit): Finding | undefined {
    const pack = this.records.packOf(name);
    if (!pack || !isOther(this.site.packsFolder ?? '', pack.name, deposit)) return undefined;
    const detail = `the archive ${pack.name} has other bytes for this name and job`;
    return { kind: 'differing', place: name, detail };
  }

  /** Judges uploads in one archive; without `contents` the archive itself is not read. */
  judgePack(pack: string, names: ReadonlySet<string>, contents = true): (name: string) => Verdict {
    return judgePack(this.site.packsFolder ?? '', pack, names, this.records, { contents, keys: this.site.resultKeys });
  }

  /** Yields the uploads that were recorded, neither removed nor archived, and are missing. */
  *missing(): Generator<Deposit> {
    const { incomingDirectory: locker } = this.site;
    const absent: string[] = [];
    for (const { name } of this.records.unseen()) if (!statGroupFile(locker, name, 'rdy')) absent.push(name);
    // Some uploads may have been removed or archived during the check.
    if (absent.length > 0) this.records.refresh();
    for (const name of absent) {
      const deposit = this.records.find(name);
      if (deposit && this.records.isExpected(name) && !findGroup(locker, name)) yield deposit;
    }
  }

  /** Whether an upload was recorded, neither removed nor archived, and is missing. */
  isMissing(name: string): boolean {
    this.records.refresh();
    return this.records.isExpected(name) && !findGroup(this.site.incomingDirectory, name);
  }

  close(): void {
    this.#records?.close();
  }
}

interface PlacedWitness {
  witness: Witness;
  logs: string;
}

function openWitnesses({ servers }: EvidenceSite): PlacedWitness[] {
  const places = new Map<string, string>();
  for (const { logfilesDirectory, witnessFolder } of servers) {
    const logs = realpathSync(logfilesDirectory);
    if (witnessFolder !== undefined && !places.has(logs)) places.set(logs, witnessFolder);
  }
  return [...places].map(([logs, folder]) => ({ logs, witness: new Witness(folder) }));
}

/** The log directories, each once. */
function folders({ servers }: EvidenceSite): string[] {
  return [...new Set(servers.map(({ logfilesDirectory }) => realpathSync(logfilesDirectory)))];
}
