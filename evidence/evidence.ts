// What can be said of the uploads of a site, by whoever asks: verify, report, show. The one verdict.
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

/** A locker, and the servers that store into it. */
export interface EvidenceSite {
  incomingDirectory: string;
  servers: readonly EvidenceServer[];
  /** Where packs are; undefined: they are not looked at. */
  packsFolder?: string | undefined;
  /** The result keys of its clients; undefined: signatures are not looked at. */
  resultKeys?: ResultKeys | undefined;
}

export interface EvidenceServer {
  logfilesDirectory: string;
  /** It must have a custody record of this name; undefined with EnableCustody=N. */
  serverId?: string | undefined;
  /** Where root keeps what it saw of the records in this folder; undefined: it keeps nothing. */
  witnessFolder?: string | undefined;
}

export interface EvidenceOptions extends Pick<RecordsOptions, 'share' | 'watch'> {
  /** Only what happened since is asked for: records that are older, and as root saw them, need not be read. */
  since?: Date | undefined;
  /** Take the custody records as they are now, whatever root saw before. */
  isNow?: boolean;
  /**
   * Only what these uploads and this job are is asked for: the records are searched for them, not
   * walked, and of their files only those are held against the witness that somebody has touched.
   */
  only?: Wanted | undefined;
}

/** The uploads and the job that are asked for. */
export interface Wanted {
  names: readonly string[];
  jobId: string | undefined;
  /** Milliseconds: when the job began; undefined when nothing tells. */
  since?: number | undefined;
}

/** What an upload in the locker turned out to be. */
export interface Judged extends UploadReport {
  /** Older than the custody record: nothing but the run record vouches for it. */
  isOlder: boolean;
}

const OLDER = 'it came before the custody record began, and nothing but its run record vouches for it';

/** A server's clock may have been set back between a job id and a custody record. */
const CLOCK_MS = 3_600_000;

/** How often an upload that changes under our eyes is looked at. */
const LOOKS = 5;

/** Keeps the custody records open, until close. */
export class Evidence {
  readonly site: EvidenceSite;
  readonly owners: Owners;
  /** Since the instant that was asked for, no record was written, and none was touched since root saw it: nothing of them was read. */
  readonly isIdle: boolean;
  readonly witnesses: readonly PlacedWitness[];
  readonly #cut: Finding[] = [];
  readonly #options: EvidenceOptions;
  readonly #met: MetNames[] = [];
  #records: CustodyRecords | undefined;

  /**
   * Reads the custody records, and of those that are not what root saw before also what they were, unless `isNow`. Throws the error of a system
   * call for the locker and the logs themselves.
   */
  constructor(site: EvidenceSite, options: EvidenceOptions = {}) {
    this.site = site;
    this.owners = new Set([0, statSync(site.incomingDirectory).uid]);
    this.#options = options;
    this.witnesses = openWitnesses(site);
    this.isIdle = options.since !== undefined && this.#isIdle(options.since.getTime());
    if (!this.isIdle) this.#records = this.#read();
  }

  /** The custody records, which are read when they are asked for. */
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
    // What was cut may be told by older segments.
    const unread = old.length === 0 ? { skip, resume } : {};
    const records = new CustodyRecords(folders(this.site), { ...options, old, ...unread });
    records.refresh();
    return records;
  }

  /** What took an upload of the job away tells its name alone. */
  #search({ names, jobId, since }: Wanted, old: OldBook[]): CustodyRecords {
    const watch = (other: string): boolean => other === jobId;
    const only = [...names, ...(jobId === undefined ? [] : [jobId])];
    // What was cut may be told by older records.
    const from = since === undefined || old.length > 0 ? undefined : since - CLOCK_MS;
    const records = new CustodyRecords(folders(this.site), { old, only, watch, from });
    records.refresh();
    const more = [...records.watched.keys()].filter((name) => !names.includes(name));
    if (from !== undefined ? this.#areThere(records, [...names, ...more]) : more.length === 0) return records;
    records.close(old);
    return this.#search({ names: [...names, ...more], jobId }, old);
  }

  /** True when all of these are there and on record: nothing that is older can say more of them. */
  #areThere(records: CustodyRecords, names: readonly string[]): boolean {
    const isThere = (name: string): boolean => findGroup(this.site.incomingDirectory, name)?.has.has('rdy') === true;
    return names.length > 0 && names.every((name) => records.isExpected(name) && isThere(name));
  }

  /**
   * True for a segment that nobody has touched since root saw it, and that is older than what is
   * asked for.
   */
  #isKnown(witness: Witness, logs: string, file: string): boolean {
    const { since, only } = this.#options;
    if (since === undefined && only === undefined) return false;
    const seen = witness.untouched(logs, file);
    return seen !== undefined && (since === undefined || seen.newest < since.getTime());
  }

  /** Of several witnesses the one that could say the least. */
  get witnessState(): WitnessState {
    const states = this.witnesses.map(({ witness }) => witness.state);
    return (['untrusted', 'unreadable', 'none', 'asked'] as const).find((state) => states.includes(state)) ?? 'none';
  }

  /** What is wrong with the custody records themselves: what root saw last is not there, or they are not as they were written. */
  findFaults(): Finding[] {
    return [...this.#cut, ...(this.#records?.findFaults() ?? [])];
  }

  /** The records that are not what root saw before. */
  cut(): string[] {
    return this.#cut.map(({ place }) => place);
  }

  /** What root has met in a folder of the locker; undefined where there is no witness that counts, or none is kept. */
  metNames(folder: string): MetNames | undefined {
    const witness = this.witnesses[0]?.witness;
    if (witness?.state !== 'asked') return undefined;
    const met = new MetNames(witness.folder, this.site.incomingDirectory, folder);
    this.#met.push(met);
    return met;
  }

  /** Has what was found sound, and what was met, kept by the witness. For root, one at a time. Throws the error of a system call. */
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

  /** An upload as it stands in the locker. What looks wrong is looked at again before it counts, because the server goes on meanwhile. */
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

  /** The finding on an upload whose name has another upload in a pack. */
  #findPacked(name: string, deposit: Deposit): Finding | undefined {
    const pack = this.records.packOf(name);
    if (!pack || !isOther(this.site.packsFolder ?? '', pack.name, deposit)) return undefined;
    const detail = `the pack of ${pack.name} has other bytes of this name and job`;
    return { kind: 'differing', place: name, detail };
  }

  /** Some uploads of one pack; without `contents` its archive is not read. */
  judgePack(pack: string, names: ReadonlySet<string>, contents = true): (name: string) => Verdict {
    return judgePack(this.site.packsFolder ?? '', pack, names, this.records, { contents, keys: this.site.resultKeys });
  }

  /** The uploads that the custody record has, that nobody pruned or packed, and that are not there. */
  *missing(): Generator<Deposit> {
    const { incomingDirectory: locker } = this.site;
    const absent: string[] = [];
    for (const { name } of this.records.unseen()) if (!statGroupFile(locker, name, 'rdy')) absent.push(name);
    // What was pruned or packed while we looked.
    if (absent.length > 0) this.records.refresh();
    for (const name of absent) {
      const deposit = this.records.find(name);
      if (deposit && this.records.isExpected(name) && !findGroup(locker, name)) yield deposit;
    }
  }

  /** True for an upload that the custody record has, that nobody pruned or packed, and that is not there. */
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

/** The folders of logs, each once. */
function folders({ servers }: EvidenceSite): string[] {
  return [...new Set(servers.map(({ logfilesDirectory }) => realpathSync(logfilesDirectory)))];
}
