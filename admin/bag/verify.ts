// webjobctl evidence --verify: makes the checks of VERIFY.sh with the code that the site itself
// uses, and with keys that the recipient obtained independently.
import { createPublicKey, type KeyObject } from 'node:crypto';
import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import { formatReady, parseReady, readLink, STREAMS } from 'webjob-locker';
import type { RunRecord } from 'webjob-protocol';
import { Failure } from '../../cli/failure.ts';
import { type BagCheck, checkBag } from '../../evidence/bag.ts';
import { type Cosigners, checkCosigners, parseCosigners } from '../../evidence/cosigners.ts';
import { hashLeaf, isIncluded } from '../../evidence/merkle.ts';
import { type FileFacts, readFile } from '../../evidence/reading.ts';
import { parseProof, parseTreeHead, TlogError, type TreeHead } from '../../evidence/tlog.ts';
import { compareDeposit, findClaim, MAX_ENV_BYTES, readRunRecord } from '../../evidence/upload.ts';
import { keyId, rawKey, verifierOf } from '../../notes/ed25519.ts';
import { parseManifest } from '../../notes/manifest.ts';
import { NoteError, type NoteVerifier, parseNote, verifyNote } from '../../notes/note.ts';
import { openResult } from '../../notes/result.ts';
import { checkStamp } from '../site/stamps.ts';
import { depositsOf } from './entries.ts';
import { POLICY } from './keys.ts';
import { isPlain, plainPath } from './plain.ts';
import type { Keys } from './proofs.ts';

const ED25519 = 1;
/** The longest file that is read as text: a custody entry in base64, with a proof. */
const MAX_TEXT_BYTES = 1024 * 1024;

/** Checks everything in a package. Throws Failure `failed` for a package that cannot be read. */
export function* verifyPackage(folder: string, keys: Keys): Generator<BagCheck> {
  if (!lstatSync(join(folder, 'data'), { throwIfNoEntry: false })?.isDirectory())
    throw new Failure('failed', `${folder} is not a package: it has no data/ directory`);
  try {
    yield* new PackageCheck(folder, keys).run();
  } catch (error) {
    if (error instanceof Failure || (error as NodeJS.ErrnoException).syscall === undefined) throw error;
    throw new Failure('failed', (error as Error).message, undefined, { cause: error });
  }
}

const ok = (place: string, detail: string): BagCheck => ({ verdict: 'ok', place, detail });
const failed = (place: string, detail: string): BagCheck => ({ verdict: 'failed', place, detail });
const note = (place: string, detail: string): BagCheck => ({ verdict: 'note', place, detail });

/** The signers that count, and their keys. */
interface Wanted {
  name?: string;
  /** A directory below data/keys. */
  folder: string;
  given: readonly KeyObject[];
}

class PackageCheck {
  readonly #folder: string;
  readonly #keys: Keys;
  readonly #digests = new Map<string, FileFacts>();
  /** The time stamps by the text of the checkpoint that they stamp. */
  readonly #stamped = new Map<string, string[]>();

  /** The valid checkpoints of the package, by text. */
  readonly #heads = new Map<string, TreeHead>();

  #policy: Cosigners | undefined;

  constructor(folder: string, keys: Keys) {
    this.#folder = folder;
    this.#keys = keys;
  }

  *run(): Generator<BagCheck> {
    yield* checkBag(this.#folder, (path) => this.#read(path), this.#digests);
    yield* this.#checkCheckpoints();
    for (const job of this.#listJobs()) yield* this.#checkJob(job);
    for (const line of this.#read('data/findings.txt')?.split('\n').slice(0, -1) ?? [])
      yield failed('found when the package was made', line);
    if (this.#digests.has('data/notes.txt'))
      yield note('data/notes.txt', 'lists omissions and facts that are not proven');
  }

  /**
   * Reads a file, one character for each byte; undefined when it does not exist, is not a regular
   * file, or is too long.
   */
  #read(path: string): string | undefined {
    const reading = readFile(join(this.#folder, path), { maxTextBytes: MAX_TEXT_BYTES });
    if (reading?.failure) throw new Failure('failed', `${path}: ${reading.failure}`);
    return reading && reading.text !== '\0' ? reading.text : undefined;
  }

  #readUtf8(path: string): string {
    return Buffer.from(this.#read(path) ?? '', 'latin1').toString();
  }

  #has(path: string): boolean {
    return this.#digests.has(path);
  }

  #listJobs(): string[] {
    const jobs = [...this.#digests.keys()].flatMap((path) => /^data\/jobs\/[^/]+(?=\/)/.exec(path)?.[0] ?? []);
    return [...new Set(jobs)];
  }

  #listFiles(pattern: RegExp): string[] {
    return [...this.#digests.keys()].filter((path) => pattern.test(path));
  }

  *#checkCheckpoints(): Generator<BagCheck> {
    for (const path of this.#listFiles(/^data\/checkpoints\/[^/]+\.checkpoint$/)) {
      const text = this.#readUtf8(path);
      const { checks, head } = this.#checkHead(path, text);
      if (head) this.#heads.set(text, head);
      yield* checks;
    }
    for (const path of this.#listFiles(/^data\/checkpoints\/[^/]+\.tsr$/)) {
      const checkpoint = path.replace(/\.tsr$/, '.checkpoint');
      const text = this.#readUtf8(checkpoint);
      yield this.#checkStamp(path, checkpoint, text);
      this.#stamped.set(text, [...(this.#stamped.get(text) ?? []), path]);
    }
  }

  #checkStamp(path: string, checkpoint: string, text: string): BagCheck {
    const own = this.#has('data/keys/tsa-ca.pem') ? join(this.#folder, 'data/keys/tsa-ca.pem') : undefined;
    const ca = this.#keys.ca?.path ?? own;
    if (ca === undefined) return note(path, "the certificate of the authority's CA is not in this package");
    try {
      const time = checkStamp(Buffer.from(this.#read(path) ?? '', 'latin1'), text, { ca });
      return ok(path, `${checkpoint} existed at ${time.toISOString()}`);
    } catch (error) {
      if (!(error instanceof Failure) || error.kind !== 'findings') throw error;
      return failed(path, error.message);
    }
  }

  /**
   * Parses a note as a checkpoint. Returns the tree head when its signature is valid or its key
   * unknown.
   */
  #checkHead(place: string, text: string): { checks: BagCheck[]; head: TreeHead | undefined } {
    try {
      const { origin } = parseTreeHead(parseNote(Buffer.from(text)).text);
      const wanted = { name: origin, folder: 'checkpoints', given: this.#keys.checkpoints };
      const { check, signedText } = this.#checkNote(place, text, wanted);
      const checks = [check, ...(check.verdict === 'failed' ? [] : this.#checkCosigners(place, text))];
      const isGood = checks.every(({ verdict }) => verdict !== 'failed');
      return { checks, head: isGood ? parseTreeHead(signedText) : undefined };
    } catch (error) {
      if (!(error instanceof NoteError || error instanceof TlogError)) throw error;
      return { checks: [failed(place, error.message)], head: undefined };
    }
  }

  /**
   * Whether enough witnesses have cosigned a checkpoint, by the given policy or the one in the
   * package.
   */
  #checkCosigners(place: string, text: string): BagCheck[] {
    const source = this.#keys.cosigners ? 'the given policy' : POLICY;
    try {
      const cosigners = this.#keys.cosigners ?? (this.#has(POLICY) ? this.#ownPolicy() : undefined);
      if (!cosigners) return [];
      const { signed } = checkCosigners(parseNote(Buffer.from(text)), cosigners);
      const names = signed.map(({ name }) => name).join(' ') || 'nobody';
      return [ok(place, `cosigned by ${names}, as ${source} requires`)];
    } catch (error) {
      if (!(error instanceof NoteError)) throw error;
      return [failed(place, `not cosigned as ${source} requires: ${error.message}`)];
    }
  }

  /** Reads the policy in the package. Throws NoteError, also when the keys beside it differ. */
  #ownPolicy(): Cosigners {
    this.#policy ??= parseCosigners(this.#readUtf8(POLICY));
    for (const { id, publicKey } of this.#policy.witnesses)
      if (!this.#ownKey(`data/keys/witnesses/${id}.pem`)[0]?.equals(publicKey))
        throw new NoteError(`data/keys/witnesses/${id}.pem is not the key of the policy`);
    return this.#policy;
  }

  /**
   * Checks the signatures of a note by the keys in a directory of the package, or only by given
   * keys. Throws NoteError for a text that is not a note.
   */
  #checkNote(
    place: string,
    text: string,
    { name: wanted, folder, given }: Wanted,
  ): { check: BagCheck; signedText: string } {
    const parsed = parseNote(Buffer.from(text));
    const signedText = parsed.text;
    const signatures = parsed.signatures.filter(({ name }) => wanted === undefined || name === wanted);
    const verifiers = signatures.flatMap(({ name, id }) => this.#findVerifier(name, id, folder, given) ?? []);
    const check = ((): BagCheck => {
      const [first] = signatures;
      const hasKeys =
        given.length > 0 || this.#listFiles(/^data\/keys\/./).some((path) => path.split('/')[2] === folder);
      if (first && !hasKeys) return note(place, `signed by ${first.name}, whose key is not in this package`);
      if (verifiers.length === 0)
        return failed(
          place,
          `no signature${wanted === undefined ? '' : ` of ${wanted}`} with a key in data/keys/${folder}`,
        );
      try {
        const signers = verifyNote({ ...parsed, signatures }, verifiers);
        return ok(place, `signed by ${signers.map(({ name }) => name).join(' ')}`);
      } catch (error) {
        if (!(error instanceof NoteError)) throw error;
        return failed(place, error.message);
      }
    })();
    return { check, signedText };
  }

  #findVerifier(name: string, id: string, folder: string, given: readonly KeyObject[]): NoteVerifier | undefined {
    const path = `data/keys/${folder}/${id}.pem`;
    const own = given.length > 0 ? given : this.#ownKey(path);
    const key = own.find((one) => keyId(name, ED25519, rawKey(one)) === id);
    if (key) return verifierOf(name, key);
    // When another key has this id, the signature is wrong rather than unknown.
    return given.length === 0 && this.#has(path) ? { name, id, isGood: () => false } : undefined;
  }

  #ownKey(path: string): KeyObject[] {
    if (!this.#has(path)) return [];
    try {
      const key = createPublicKey(this.#read(path) ?? '');
      return key.asymmetricKeyType === 'ed25519' ? [key] : [];
    } catch {
      return [];
    }
  }

  *#checkJob(job: string): Generator<BagCheck> {
    const isIn = (path: string): boolean => path.startsWith(`${job}/`);
    for (const path of this.#listFiles(/\/(?:record-\d+|custody)\.json$/).filter(isIn)) yield* this.#checkEntry(path);
    const uploads = this.#listFiles(/\/upload-\d+\//).filter(isIn);
    for (const upload of new Set(uploads.map((path) => path.replace(/\/[^/]+$/, '')))) yield* this.#checkUpload(upload);
    if (this.#has(`${job}/program.manifest`)) yield this.#checkManifest(job);
  }

  *#checkEntry(path: string): Generator<BagCheck> {
    const line = this.#read(path) ?? '';
    const text = line.replace(/\n$/, '');
    if (!readLink({ text, from: 0, to: text.length + 1 })) {
      yield failed(path, 'does not match its own checksum');
      return;
    }
    yield ok(path, 'matches its own checksum');
    const place = path.replace(/\.json$/, '.tlog-proof');
    if (!this.#has(place)) {
      yield note(path, 'no checkpoint covers it');
      return;
    }
    try {
      const proof = parseProof(this.#readUtf8(place));
      const entry = Buffer.from(text, 'latin1');
      if (!proof.entry?.equals(entry)) {
        yield failed(place, `proves an entry other than ${path}`);
        return;
      }
      // Most proofs of a package are for one of its checkpoints.
      let head = this.#heads.get(proof.checkpoint);
      if (!head) {
        const checked = this.#checkHead(place, proof.checkpoint);
        yield* checked.checks;
        head = checked.head;
      }
      if (!head) return;
      const { origin, size } = head;
      if (!isIncluded({ ...head, index: proof.index }, hashLeaf(entry), proof.path))
        yield failed(place, `does not lead from the entry to the root of ${origin}`);
      else {
        yield ok(place, `entry ${proof.index} of ${origin}, which had ${size} entries`);
        for (const stamp of this.#stamped.get(proof.checkpoint) ?? []) yield ok(place, `stamped by ${stamp}`);
      }
    } catch (error) {
      if (!(error instanceof TlogError || error instanceof NoteError)) throw error;
      yield failed(place, error.message);
    }
  }

  *#checkUpload(upload: string): Generator<BagCheck> {
    const missing = [...STREAMS, 'rdy'].filter((name) => !this.#has(`${upload}/${name}`));
    for (const name of missing) yield failed(upload, `no ${name}`);
    if (missing.length > 0) return;
    if (this.#has(`${upload}/custody.json`)) yield* this.#checkDeposit(upload);
    else yield note(upload, 'no entry of the custody record confirms it');
    yield* this.#checkRecord(upload);
  }

  *#checkDeposit(upload: string): Generator<BagCheck> {
    const ready = this.#read(`${upload}/rdy`) ?? '';
    const jobId = readJobId(ready);
    if (jobId === undefined || ready !== formatReady(jobId)) yield failed(`${upload}/rdy`, 'not one line Jid=JOB');
    const told = this.#readDeposits(`${upload}/custody.json`);
    const isContent = (deposit: (typeof told)[number]): boolean =>
      STREAMS.every((stream) => {
        const { bytes = -1, sha256 } = this.#digests.get(`${upload}/${stream}`) ?? {};
        return compareDeposit(deposit, stream, { bytes, sha256 }) === undefined;
      });
    const same = told.filter(isContent);
    yield same.length > 0
      ? ok(upload, 'out, err and env are what the custody record says')
      : failed(upload, 'not what the custody record says');
    yield (same.length > 0 ? same : told).some((deposit) => deposit.jobId === jobId)
      ? ok(upload, `of the job ${jobId}, as the custody record says`)
      : failed(upload, 'the custody record names another job id');
  }

  #readDeposits(path: string) {
    try {
      return depositsOf(JSON.parse(this.#read(path) ?? '{}'));
    } catch {
      return [];
    }
  }

  *#checkRecord(upload: string): Generator<BagCheck> {
    const env = readFile(join(this.#folder, upload, 'env'), { maxTextBytes: MAX_ENV_BYTES });
    const { record } = readRunRecord(env?.text ?? '', env?.size ?? 0);
    if (env) yield* this.#checkResult(upload, Buffer.from(env.text === '\0' ? '' : env.text, 'latin1'));
    yield* this.#checkPlain(upload, new Map(record?.extra));
    if (!record || !isHashed(record)) {
      yield note(`${upload}/env`, 'states no hashes that can be checked');
      return;
    }
    for (const stream of ['out', 'err'] as const) {
      const place = `${upload}/${stream}`;
      const claim = findClaim(stream, record);
      if (!claim) {
        yield note(place, 'the run record states no hash of it');
        continue;
      }
      const { hashType, algorithm, digest } = claim;
      const found = readFile(join(this.#folder, place), { algorithms: [algorithm] })?.digests.get(algorithm);
      yield found === digest
        ? ok(place, `the ${hashType} of the run record`)
        : failed(place, `not the ${hashType} of the run record`);
    }
  }

  /** Checks a decrypted copy of a sealed stream. */
  *#checkPlain(upload: string, extra: ReadonlyMap<string, string>): Generator<BagCheck> {
    for (const stream of ['out', 'err'] as const) {
      const place = plainPath(`${upload}/${stream}`);
      const found = this.#digests.get(place);
      if (!found) continue;
      yield isPlain(extra, stream, found)
        ? ok(place, 'as the client sealed it, according to the run record')
        : failed(place, 'not as the client sealed it, according to the run record');
    }
  }

  /** Checks the client's signature on the run record and, through it, on out and err. */
  *#checkResult(upload: string, bytes: Buffer): Generator<BagCheck> {
    const env = `${upload}/env`;
    try {
      const result = openResult(bytes);
      if (!result) return;
      const { signature, text, record, streams } = result;
      const { name, id } = signature;
      const verifier = this.#findVerifier(name, id, 'clients', []);
      if (!verifier && !this.#listFiles(/^data\/keys\/clients\//).length) {
        yield note(env, `signed by the client ${name}, whose key is not in this package`);
        return;
      }
      if (!verifier) yield failed(env, 'no signature with a key in data/keys/clients');
      else if (!verifier.isGood(text, signature.bytes)) yield failed(env, `the signature of ${name} is wrong`);
      else if (name !== record.fields.ClientId) yield failed(env, `the record is not as ${name} signs it`);
      else if ((['out', 'err'] as const).some((stream) => this.#isOther(`${upload}/${stream}`, streams[stream])))
        yield failed(upload, `out and err are not what the client ${name} signed`);
      else if (this.#read(`${upload}/rdy`) !== formatReady(record.fields.Jid))
        yield failed(upload, `the client ${name} signed it as job ${record.fields.Jid}`);
      else yield ok(upload, `out, err and env are what the client ${name} signed`);
    } catch (error) {
      if (!(error instanceof NoteError)) throw error;
      yield failed(env, error.message);
    }
  }

  #isOther(path: string, { bytes, sha256 }: FileFacts): boolean {
    const found = this.#digests.get(path);
    return found?.bytes !== bytes || found.sha256 !== sha256;
  }

  #checkManifest(job: string): BagCheck {
    const place = `${job}/program.manifest`;
    const given = this.#keys.manifests.map(({ publicKey }) => publicKey);
    try {
      const { check, signedText } = this.#checkNote(place, this.#readUtf8(place), { folder: 'manifests', given });
      const { name } = parseManifest(signedText);
      const env = this.#listFiles(/\/upload-\d+\/env$/).find((path) => path.startsWith(`${job}/`));
      const asked = /^GetRequest=(.*?)\r?$/m.exec(env === undefined ? '' : (this.#read(env) ?? ''))?.[1];
      return asked === undefined || asked === name || check.verdict === 'failed'
        ? check
        : failed(place, 'not for the program that the client requested');
    } catch (error) {
      if (!(error instanceof NoteError)) throw error;
      return failed(place, error.message);
    }
  }
}

/** Whether the run record names a known algorithm. */
function isHashed({ fields, extra }: RunRecord): boolean {
  return findClaim('out', { fields: { ...fields, StdOutHash: '0' }, extra }) !== undefined;
}

function readJobId(ready: string): string | undefined {
  try {
    return parseReady(ready);
  } catch {
    return undefined;
  }
}
