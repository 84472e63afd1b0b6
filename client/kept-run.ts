// Keeps a run and its output on disk from the first byte until the server has them: in
// SpoolDirectory, or without a spool in the private directory of the job. A run that does not fit
// in the spool moves to the private directory; if neither has room, the run is sent from where it
// is. A full disk must never prevent evidence from being sent.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { ResultStreams } from '../notes/result.ts';
import { Capture, type Captured } from './captured.ts';
import { codeOf, Failure, warn } from './failure.ts';
import type { Sink } from './pipes.ts';
import type { ResultSigner } from './result.ts';
import type { Sealer } from './seal.ts';
import type { ClientSettings } from './settings.ts';
import {
  flushCommand,
  folderBytes,
  JobFolder,
  type KeptFacts,
  newJobName,
  openSpool,
  ownName,
  spoolBytes,
  sync,
  unusable,
} from './spool.ts';

/** Errors that only a change of settings can fix; after all others the job continues elsewhere. */
const REFUSALS = new Set(['EACCES', 'EEXIST', 'ELOOP', 'ENAMETOOLONG', 'ENOTDIR', 'EPERM']);

export class KeptRun {
  readonly sinks: readonly [Sink, Sink];
  readonly #settings: ClientSettings;
  readonly #facts: Buffer;
  readonly #isSigned: boolean;
  readonly #job = newJobName();
  #env: Buffer;
  #folder: JobFolder;
  /** The directory in which the run continues when the current one accepts no more data. */
  #refuge: string | undefined;
  #captures: readonly [Capture, Capture];
  /** Whether the run is complete on disk under the name of a job. */
  #isKept = false;
  #isOver = false;

  /**
   * Creates the directory of a run. `env` is a preliminary run record, so that the run can be sent
   * even if webjob is killed. Throws Failure.
   */
  static open(settings: ClientSettings, privateFolder: string, facts: KeptFacts, env: string): KeptRun {
    const { spoolDirectory: spool } = settings;
    const make = (place: string, refuge?: string): KeptRun => new KeptRun(settings, place, refuge, facts, env);
    try {
      if (spool !== '') {
        openSpool(spool);
        return make(spool, privateFolder);
      }
    } catch (error) {
      const code = codeOf(error);
      if (error instanceof Failure || REFUSALS.has(code)) throw unusable(error);
      warn(`SpoolDirectory cannot be used: ${code}; the job is kept in ${privateFolder} until it is sent`);
    }
    try {
      return make(privateFolder);
    } catch (error) {
      throw new Failure('run', `the output cannot be kept in ${privateFolder}: ${codeOf(error)}`);
    }
  }

  private constructor(
    settings: ClientSettings,
    place: string,
    refuge: string | undefined,
    facts: KeptFacts,
    env: string,
  ) {
    this.#settings = settings;
    this.#refuge = refuge;
    this.#facts = Buffer.from(`${JSON.stringify({ ...facts, putUrl: settings.put?.url.href })}\n`);
    this.#isSigned = facts.resultKey !== undefined;
    this.#env = Buffer.from(env);
    this.#folder = JobFolder.makeRun(place);
    try {
      this.#writeFiles(this.#folder, refuge !== undefined);
      this.#captures = [this.#capture('stdout', 'out'), this.#capture('stderr', 'err')];
    } catch (error) {
      this.#folder.discard();
      throw error;
    }
    this.sinks = [(piece) => this.#captures[0].take(piece), (piece) => this.#captures[1].take(piece)];
  }

  #capture(stream: 'stdout' | 'stderr', file: 'out' | 'err'): Capture {
    const path = join(this.#folder.path, file);
    const onFailure = (code: string): boolean => this.#moveOn(code);
    return new Capture(stream, path, { hashType: this.#settings.hashType, isSigned: this.#isSigned, onFailure });
  }

  /**
   * Writes the files beside the streams. If no other directory is left, a run without these files
   * is better than none, so a failure is ignored unless `isNeeded`.
   */
  #writeFiles(folder: JobFolder, isNeeded: boolean): void {
    try {
      folder.write('parcel.json', this.#facts);
      folder.write('env', this.#env);
    } catch (error) {
      if (isNeeded) throw error;
    }
  }

  /** Ends the capture. Returns the digests, and texts for RunError when streams are incomplete. */
  finish(): { outHash: string; errHash: string; streams: ResultStreams; troubles: string[] } {
    for (const capture of this.#captures) capture.finish(this.#isDurable);
    const [out, err] = this.#captures;
    const troubles = [out.trouble, err.trouble].filter((trouble) => trouble !== undefined);
    return { outHash: out.digest, errHash: err.digest, streams: { out: out.facts, err: err.facts }, troubles };
  }

  /**
   * Seals the output and signs the run record, in the other directory when this one accepts no more
   * data. Returns the record. When this throws Failure `put`, the job is kept unsealed and is
   * sealed when it is delivered.
   */
  async seal(record: string, sealer: Sealer, signer: ResultSigner): Promise<string> {
    this.#env = Buffer.from(record);
    const { sealFailure, sealJob } = await import('./seal.ts');
    for (;;) {
      const [out, err] = this.#captures;
      try {
        this.#folder.write('env', this.#env);
        const job = { folder: this.#folder.path, out: out.captured, err: err.captured, record };
        const signed = await sealJob(job, sealer, signer);
        out.becomes(join(this.#folder.path, 'out'));
        err.becomes(join(this.#folder.path, 'err'));
        return signed;
      } catch (error) {
        if (!this.#moveOn(codeOf(error))) throw sealFailure(error);
      }
    }
  }

  /**
   * Completes the job on disk before it is sent, so that nothing is lost if webjob is killed
   * meanwhile. Never throws.
   */
  complete(env: string): void {
    this.#env = Buffer.from(env);
    try {
      this.#settle(ownName('sending', this.#job), this.#isDurable);
    } catch (error) {
      // Without a spool, durability matters only once the job has to wait.
      if (this.#isDurable)
        warn(`the job cannot be kept in ${this.#folder.place}: ${codeOf(error)}; it is sent at once`);
    }
  }

  /** The streams that go to the server. */
  get streams(): { out: Captured; err: Captured; env: Buffer } {
    const [out, err] = this.#captures;
    return { out: out.captured, err: err.captured, env: this.#env };
  }

  /**
   * Keeps the job for a later delivery. Returns the command that delivers it, or a description of
   * the files that are left. Never throws.
   */
  stay(conf: string): string {
    if (this.#isKept && this.#isDurable) this.#letGo();
    else this.#keepLate();
    return this.describe(conf);
  }

  /** Returns the command that delivers the job from its current directory. */
  describe(conf: string): string {
    const { place, path } = this.#folder;
    if (!existsSync(path)) return 'nothing of the job is left';
    if (!existsSync(join(path, 'env')) || !existsSync(join(path, 'parcel.json'))) return `the output stays in ${path}`;
    if (this.#isKept && !this.#isOver && this.isInSpool) return flushCommand(conf);
    return flushCommand(conf, this.#isKept && !this.isInSpool ? place : path);
  }

  /** The directory of the run's files. */
  get path(): string {
    return this.#folder.path;
  }

  get isInSpool(): boolean {
    return this.#folder.place === this.#settings.spoolDirectory;
  }

  /** Closes the files, because some file systems cannot remove a directory with an open file. */
  close(): void {
    for (const capture of this.#captures) capture.close();
  }

  /** Removes the run, because the server has it. */
  remove(): void {
    this.close();
    this.#folder.remove();
  }

  /**
   * Whether files are synced from the beginning; without a spool they are synced only when the job
   * has to wait.
   */
  get #isDurable(): boolean {
    return this.#settings.spoolDirectory !== '';
  }

  /**
   * Releases the job. If the rename fails, the job still waits, under the name of a process that
   * will have ended.
   */
  #letGo(): void {
    try {
      if (!this.#isOver) this.#rename(this.#job);
      sync(this.#folder.place);
    } catch {
      // The job is complete and on disk.
    }
  }

  #keepLate(): void {
    try {
      for (const capture of this.#captures) capture.finish(true);
      this.#settle(this.#job, true);
    } catch (error) {
      if (this.#moveOn(codeOf(error))) this.#keepLate();
      else warn(`the job cannot be kept in ${this.#folder.place}: ${codeOf(error)}`);
    }
  }

  /**
   * Syncs everything to disk if `durably`, and then renames the directory. Throws the error of the
   * system call.
   */
  #settle(name: string, durably: boolean): void {
    const { place, path } = this.#folder;
    this.#folder.write('parcel.json', this.#facts);
    this.#folder.write('env', this.#env);
    if (durably) this.#folder.sync();
    this.#isOver = this.isInSpool && spoolBytes(place) + folderBytes(path) > this.#settings.spoolLimit;
    this.#rename(this.#isOver ? `over-${this.#job}` : name);
    if (durably) sync(place);
    this.#isKept = true;
  }

  /**
   * Renames the directory; on Windows the files must be closed first. Throws the error of the
   * system call.
   */
  #rename(name: string): void {
    if (process.platform !== 'win32') {
      this.#folder.rename(name);
      return;
    }
    for (const capture of this.#captures) capture.close();
    try {
      this.#folder.rename(name);
    } finally {
      for (const [index, file] of ['out', 'err'].entries())
        this.#captures[index]?.reopen(join(this.#folder.path, file));
    }
  }

  /**
   * Moves to the other directory with the output captured so far; false when there is no other
   * directory, or when that one accepts no more data either.
   */
  #moveOn(code: string): boolean {
    const refuge = this.#refuge;
    this.#refuge = undefined;
    // EFBIG is a limit of the process and applies in every directory.
    if (refuge === undefined || code === 'EFBIG') return false;
    try {
      this.#moveTo(JobFolder.makeRun(refuge));
    } catch {
      return false;
    }
    warn(`SpoolDirectory is full or unusable: ${code}; the job is kept in ${refuge} until it is sent`);
    return true;
  }

  #moveTo(folder: JobFolder): void {
    const [out, err] = this.#captures;
    let close = (): void => {};
    try {
      this.#writeFiles(folder, true);
      const copy = out.copyTo(join(folder.path, 'out'));
      close = copy.close;
      err.copyTo(join(folder.path, 'err')).use();
      copy.use();
    } catch (error) {
      close();
      folder.discard();
      throw error;
    }
    this.#folder.discard();
    this.#folder = folder;
  }
}
