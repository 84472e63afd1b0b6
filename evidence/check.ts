// Checks checkpoints and proofs with nothing but a public key, so that any recipient can check them
// anywhere.
import { checkCheckpoint, type Trust } from './checkpoint.ts';
import { hashLeaf, isConsistent, isIncluded } from './merkle.ts';
import { parseExtension, parseProof, splitCheckpoints, splitProofs, TlogError, type TreeHead } from './tlog.ts';

/** A statement that was checked and found true. */
export interface Checked {
  kind: 'checkpoint' | 'entry' | 'extension';
  origin: string;
  /** The number of entries in the tree. */
  size: number;
  /** The index of the entry, or the size of the older tree. */
  of?: number;
  /** The entry, one character for each byte. */
  text?: string;
}

export interface Companions {
  /** The entry to be proven, when the proof itself does not contain it. */
  entry?: Buffer | undefined;
  /**
   * The text of the earlier checkpoint; of several checkpoints, the one with the size that the
   * proof names is used.
   */
  old?: string | undefined;
}

/**
 * Checks every checkpoint or proof in a text, in order. For the first that fails, throws a
 * NoteError or TlogError whose message says why.
 */
export function* checkText(text: string, trust: Trust, companions: Companions = {}): Generator<Checked> {
  if (text.startsWith('old ')) yield checkExtension(text, trust, companions);
  else if (text.startsWith('c2sp.org/tlog-proof@'))
    for (const proof of splitProofs(text)) yield checkProof(proof, trust, companions);
  else {
    const pieces = splitCheckpoints(text);
    if (pieces.length === 0) throw new TlogError('neither a checkpoint nor a proof');
    for (const piece of pieces) {
      const { origin, size } = checkCheckpoint(piece.text, trust);
      yield { kind: 'checkpoint', origin, size };
    }
  }
}

function checkProof(text: string, trust: Trust, { entry: given }: Companions): Checked {
  const { index, path, entry: held, checkpoint } = parseProof(text);
  const head = checkCheckpoint(checkpoint, trust);
  const entry = given ?? held;
  if (!entry) throw new TlogError('the proof does not contain the entry: give it with --entry');
  // A file with the entry may end in a newline that is not part of it.
  const isEnded = given !== undefined && entry.at(-1) === 10;
  const found = [entry, ...(isEnded ? [entry.subarray(0, -1)] : [])].find((bytes) =>
    isIncluded({ ...head, index }, hashLeaf(bytes), path),
  );
  if (!found) throw new TlogError(`the path does not lead from this entry to the root of ${head.origin}`);
  return { kind: 'entry', origin: head.origin, size: head.size, of: index, text: found.toString('latin1') };
}

function checkExtension(text: string, trust: Trust, { old }: Companions): Checked {
  if (old === undefined) throw new TlogError('this proof needs the earlier checkpoint: give it with --old');
  const { older: size, path, checkpoint } = parseExtension(text);
  const newer = checkCheckpoint(checkpoint, trust);
  if (!isConsistent(findOld(old, size, newer, trust), newer, path))
    throw new TlogError(`${newer.origin} does not begin with the older tree`);
  return { kind: 'extension', origin: newer.origin, size: newer.size, of: size };
}

function findOld(text: string, size: number, { origin }: TreeHead, trust: Trust): TreeHead {
  const found = splitCheckpoints(text)
    .map((piece) => checkCheckpoint(piece.text, trust))
    .findLast((head) => head.size === size && head.origin === origin);
  if (!found) throw new TlogError(`there is no older checkpoint of ${origin} with ${size} entries`);
  return found;
}
