// Checkpoints: signed notes with the number of entries that a custody record had at a moment, and
// the root of the Merkle tree over them. A copy kept elsewhere shows whether any of these entries
// was changed or removed later (docs/protocol.md, section 8). Earlier versions wrote lines of JSON
// instead, with the size of the last segment and its SHA-256.
import { createPrivateKey, createPublicKey, type KeyObject, verify } from 'node:crypto';
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { digestRange, listCustodyFiles } from 'webjob-locker';
import { Failure } from '../cli/failure.ts';
import { verifierOf } from '../notes/ed25519.ts';
import { NoteError } from '../notes/note.ts';
import { type Cosigners, checkCosigners } from './cosigners.ts';
import type { Finding } from './finding.ts';
import { parseCheckpoint, splitCheckpoints, TlogError, type TreeHead } from './tlog.ts';
import { rootsOf } from './tree.ts';

/** A checkpoint as earlier versions wrote it. */
interface OldCheckpoint {
  /**
   * The last segment of the custody record at that time, as a path below LogfilesDirectory. Each
   * segment is bound to the one before it.
   */
  file: string;
  /** The size of that segment in bytes, and its SHA-256: `head -c SIZE FILE | sha256sum`. */
  size: number;
  head: string;
  time: string;
}

/**
 * Parses a checkpoint in one line. Returns undefined for any other text, and when the signature
 * does not verify with the key.
 */
function parseOldCheckpoint(line: string, key: KeyObject): OldCheckpoint | undefined {
  const pattern =
    /^(\{"file":"nph-webjob-custody\.[A-Za-z0-9_.-]+(?:\.d\/\d{6})?\.jsonl","size":\d{1,15},"head":"[0-9a-f]{64}","time":"[0-9TZ:.-]+"),"signature":"([A-Za-z0-9+/]{86}==)"\}$/;
  const [, text, signature] = pattern.exec(line) ?? [];
  if (text === undefined || signature === undefined) return undefined;
  const isSigned = verify(null, Buffer.from(`${text}}\n`), key, Buffer.from(signature, 'base64'));
  return isSigned ? JSON.parse(`${text}}`) : undefined;
}

/** The keys that must have signed a checkpoint. */
export interface Trust {
  key: KeyObject;
  /** The policy that says which witnesses must have cosigned. */
  cosigners?: Cosigners | undefined;
}

/**
 * Parses a checkpoint that must be signed by the log's own key and cosigned as the policy requires.
 * Throws a NoteError or TlogError that names the problem.
 */
export function checkCheckpoint(text: string, { key, cosigners }: Trust): TreeHead {
  const { note, head } = parseCheckpoint(text);
  const { name, id, isGood } = verifierOf(head.origin, key);
  const own = note.signatures.filter((one) => one.name === name && one.id === id);
  if (own.length === 0) throw new NoteError('the key has not signed the checkpoint');
  if (!own.every(({ bytes }) => isGood(note.text, bytes)))
    throw new NoteError(`the signature of ${name}+${id} is wrong`);
  if (cosigners) checkCosigners(note, cosigners);
  return head;
}

/**
 * Checks the custody records in some log directories against every checkpoint of a file. A
 * checkpoint does not name its directory, so one of them must contain the records that it commits
 * to. Throws Failure for a file that cannot be read or has no checkpoint.
 */
export function* compareCheckpoints(path: string, trust: Trust, folders: readonly string[]): Generator<Finding> {
  const pieces = splitCheckpoints(readText(path));
  if (pieces.length === 0) throw new Failure('failed', `${path} contains no checkpoint`);
  const heads: TreeHead[] = [];
  for (const { line, text } of pieces) {
    const old = text.startsWith('{') ? parseOldCheckpoint(text.slice(0, -1), trust.key) : undefined;
    if (old) {
      yield* compareAny(old, folders);
      continue;
    }
    try {
      heads.push(checkCheckpoint(text, trust));
    } catch (error) {
      if (!(error instanceof NoteError || error instanceof TlogError)) throw error;
      const why = text.startsWith('{') ? '' : `: ${error.message}`;
      const detail = `line ${line} is not a checkpoint signed with this key${why}`;
      yield { kind: 'checkpoint-invalid', place: path, detail };
    }
  }
  yield* compareHeads(heads, folders);
}

/** Walks each custody record once, however many checkpoints commit to it. */
function* compareHeads(heads: readonly TreeHead[], folders: readonly string[]): Generator<Finding> {
  for (const serverId of new Set(heads.map(({ origin }) => serverOf(origin)))) {
    const all = heads.filter(({ origin }) => serverOf(origin) === serverId);
    const records = [...new Set(folders)].map((logs) => ({
      logs,
      segments: listCustodyFiles(logs).filter((file) => file.serverId === serverId),
    }));
    const found = records
      .filter(({ segments }) => segments.length > 0)
      .map(({ logs, segments }) =>
        rootsOf(
          logs,
          segments.map(({ file }) => file),
          all.map(({ size }) => size),
        ),
      );
    for (const { origin, size, root } of all) {
      if (found.some(({ roots }) => roots.get(size)?.equals(root))) continue;
      const longest = Math.max(0, ...found.map((record) => record.size));
      if (longest < size) {
        const detail = `${longest} entries, ${size} at the checkpoint`;
        yield { kind: 'checkpoint-truncated', place: origin, detail };
      } else {
        const detail = `its first ${size} entries have changed since the checkpoint`;
        yield { kind: 'checkpoint-changed', place: origin, detail };
      }
    }
  }
}

/**
 * The id of the server that a log belongs to: its origin ends with the id, or with the id and the
 * number of the log (CustodyTree.begin).
 */
export function serverOf(origin: string): string {
  return /([^/]+?)(?:\/r\d+)?$/.exec(origin)?.[1] ?? '';
}

function compareAny(checkpoint: OldCheckpoint, folders: readonly string[]): Finding[] {
  const found = [...new Set(folders)].map((folder) => [...compare(checkpoint, folder)]);
  return found.some((findings) => findings.length === 0) ? [] : found.flat().slice(0, 1);
}

function* compare({ file, size, head, time }: OldCheckpoint, logfilesDirectory: string): Generator<Finding> {
  const found = digestStart(join(logfilesDirectory, file), size);
  if (found.size < size) {
    const detail = `${found.size} bytes, ${size} at the checkpoint of ${time}`;
    yield { kind: 'checkpoint-truncated', place: file, detail };
  } else if (found.head !== head) {
    const detail = `its first ${size} bytes have changed since the checkpoint of ${time}`;
    yield { kind: 'checkpoint-changed', place: file, detail };
  }
}

/**
 * Digests the first `size` bytes of a file, or all of a shorter one; a file that does not exist
 * counts as empty. Throws Failure.
 */
export function digestStart(path: string, size: number): { size: number; head: string } {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { size: 0, head: '' };
    throw new Failure('failed', `${path} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
  try {
    return { size: fstatSync(fd).size, head: digestRange(fd, 0, size) };
  } finally {
    closeSync(fd);
  }
}

/** Reads an Ed25519 private key in PEM. Throws Failure. */
export function readSigningKey(path: string): KeyObject {
  return readKey(path, createPrivateKey, 'private');
}

export function readCheckingKey(path: string): KeyObject {
  return readKey(path, createPublicKey, 'public');
}

function readKey(path: string, create: (pem: string) => KeyObject, half: string): KeyObject {
  const pem = readText(path);
  let key: KeyObject | undefined;
  try {
    key = create(pem);
  } catch {
    // OpenSSL's message is left out, because it could quote the file.
  }
  if (key?.asymmetricKeyType !== 'ed25519')
    throw new Failure('failed', `${path} is not a ${half} Ed25519 key in PEM`, 'webjobctl sign keygen makes a pair');
  return key;
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new Failure('failed', `${path} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
}
