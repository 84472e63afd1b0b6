// Checkpoints: how many entries a custody record had at a moment and the root of the Merkle tree
// over them, a signed note each. Kept elsewhere, one tells whether anything before that moment was
// changed or taken away since (docs/protocol.md, section 8). Those of earlier versions are lines of
// JSON: how long the last segment was, and the SHA-256 of all of it.
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

/** What a checkpoint of an earlier version says. */
interface OldCheckpoint {
  /**
   * The custody record's last segment then, by its path below LogfilesDirectory: each is bound to
   * the one before.
   */
  file: string;
  /** Bytes of it, and their SHA-256: `head -c SIZE FILE | sha256sum`. */
  size: number;
  head: string;
  time: string;
}

/** The checkpoint in a line; undefined for what is none, or not signed with the key's other half. */
function parseOldCheckpoint(line: string, key: KeyObject): OldCheckpoint | undefined {
  const pattern =
    /^(\{"file":"nph-webjob-custody\.[A-Za-z0-9_.-]+(?:\.d\/\d{6})?\.jsonl","size":\d{1,15},"head":"[0-9a-f]{64}","time":"[0-9TZ:.-]+"),"signature":"([A-Za-z0-9+/]{86}==)"\}$/;
  const [, text, signature] = pattern.exec(line) ?? [];
  if (text === undefined || signature === undefined) return undefined;
  const isSigned = verify(null, Buffer.from(`${text}}\n`), key, Buffer.from(signature, 'base64'));
  return isSigned ? JSON.parse(`${text}}`) : undefined;
}

/** Who must have signed. */
export interface Trust {
  key: KeyObject;
  /** Who must have cosigned each note. */
  cosigners?: Cosigners | undefined;
}

/**
 * Takes a note as a checkpoint that the log's own key has signed, and as many witnesses as a policy
 * asks for. Throws NoteError and TlogError, which say what is wrong with it.
 */
export function checkCheckpoint(text: string, { key, cosigners }: Trust): TreeHead {
  const { note, head } = parseCheckpoint(text);
  const { name, id, isGood } = verifierOf(head.origin, key);
  const own = note.signatures.filter((one) => one.name === name && one.id === id);
  if (own.length === 0) throw new NoteError('the key has not signed it');
  if (!own.every(({ bytes }) => isGood(note.text, bytes)))
    throw new NoteError(`the signature of ${name}+${id} is wrong`);
  if (cosigners) checkCosigners(note, cosigners);
  return head;
}

/**
 * Holds the custody records in some folders of logs against every checkpoint of a file. A checkpoint does not say of which folder it is: one
 * of them must hold what it tells. Throws Failure for a file that cannot be read or holds none.
 */
export function* compareCheckpoints(path: string, trust: Trust, folders: readonly string[]): Generator<Finding> {
  const pieces = splitCheckpoints(readText(path));
  if (pieces.length === 0) throw new Failure('failed', `${path} holds no checkpoint`);
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

/** Walks each record that checkpoints are of once, however many there are of it. */
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
        const detail = `its first ${size} entries are not what they were at the checkpoint`;
        yield { kind: 'checkpoint-changed', place: origin, detail };
      }
    }
  }
}

/** The server whose record a log is of: the origin ends with it, or with the number of the log behind it (CustodyTree.begin). */
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
    const detail = `its first ${size} bytes are not what they were at the checkpoint of ${time}`;
    yield { kind: 'checkpoint-changed', place: file, detail };
  }
}

/** The first bytes of a file, as far as it has them; one that is gone has none. Throws Failure. */
export function digestStart(path: string, size: number): { size: number; head: string } {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { size: 0, head: '' };
    throw new Failure('failed', `${path}: ${(error as NodeJS.ErrnoException).code}`);
  }
  try {
    return { size: fstatSync(fd).size, head: digestRange(fd, 0, size) };
  } finally {
    closeSync(fd);
  }
}

/** An Ed25519 key in PEM. Throws Failure. */
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
    // OpenSSL's own words could name what is in the file.
  }
  if (key?.asymmetricKeyType !== 'ed25519')
    throw new Failure('failed', `${path} is no ${half} Ed25519 key in PEM`, 'webjobctl sign keygen makes a pair');
  return key;
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new Failure('failed', `${path}: ${(error as NodeJS.ErrnoException).code}`);
  }
}
