// Merkle trees (RFC 6962, section 2.1): the root of a list of entries, the proof that an entry is
// in it, and the proof that a longer list begins with a shorter one. A store supplies the hashes of
// whole subtrees, so that each operation needs at most as many steps as the tree is high.
import { hash } from 'node:crypto';

export const HASH_BYTES = 32;

/** Returns the hash of the subtree of 2^level leaves that begins at leaf `index * 2^level`. */
export type ReadHash = (level: number, index: number) => Buffer;

/** The hash of a leaf: SHA-256 of 0x00 and the entry (RFC 6962, section 2.1). */
export function hashLeaf(entry: Buffer): Buffer {
  return hash('sha256', Buffer.concat([LEAF, entry]), 'buffer');
}

/** The hash of an inner node: SHA-256 of 0x01 and both children (RFC 6962, section 2.1). */
export function hashNode(left: Buffer, right: Buffer): Buffer {
  return hash('sha256', Buffer.concat([NODE, left, right]), 'buffer');
}

const LEAF = Buffer.from([0]);
const NODE = Buffer.from([1]);

/** The root of an empty tree: the SHA-256 of nothing (RFC 6962, section 2.1). */
export function emptyRoot(): Buffer {
  return hash('sha256', '', 'buffer');
}

/** The root of the tree of the first `size` entries (RFC 6962, section 2.1). */
export function rootOf(size: number, read: ReadHash): Buffer {
  return size === 0 ? emptyRoot() : hashRange(0, size, read);
}

/**
 * The hash over the entries from `from` up to but not including `to`, in the tree that ends at
 * `to`.
 */
function hashRange(from: number, to: number, read: ReadHash): Buffer {
  const size = to - from;
  const level = Math.log2(size);
  if (Number.isInteger(level)) return read(level, from / size);
  const middle = from + splitOf(size);
  return hashNode(hashRange(from, middle, read), hashRange(middle, to, read));
}

/** The largest power of two that is smaller than `size`. */
function splitOf(size: number): number {
  return 2 ** Math.floor(Math.log2(size - 1));
}

/**
 * The audit path of entry `index` in a tree of `size` entries, from the leaf's sibling upwards (RFC
 * 6962, section 2.1.1). Throws RangeError for an entry that is not in the tree.
 */
export function proveInclusion(index: number, size: number, read: ReadHash): Buffer[] {
  if (!isCount(index) || !isCount(size) || index >= size)
    throw new RangeError(`a tree of ${size} entries has no entry ${index}`);
  const path: Buffer[] = [];
  for (let [from, to] = [0, size]; to - from > 1; ) {
    const middle = from + splitOf(to - from);
    const isLeft = index < middle;
    path.unshift(isLeft ? hashRange(middle, to, read) : hashRange(from, middle, read));
    [from, to] = isLeft ? [from, middle] : [middle, to];
  }
  return path;
}

/** Whether an audit path leads from an entry's hash to the root (RFC 9162, section 2.1.3.2). */
export function isIncluded(
  { index, size, root }: { index: number; size: number; root: Buffer },
  leaf: Buffer,
  path: readonly Buffer[],
): boolean {
  if (!isCount(index) || !isCount(size) || index >= size) return false;
  let [position, last, found] = [index, size - 1, leaf];
  for (const sibling of path) {
    if (last === 0) return false;
    if (position % 2 === 1 || position === last) {
      found = hashNode(sibling, found);
      while (position % 2 === 0 && position !== 0) {
        position /= 2;
        last = Math.floor(last / 2);
      }
    } else found = hashNode(found, sibling);
    position = Math.floor(position / 2);
    last = Math.floor(last / 2);
  }
  return last === 0 && found.equals(root);
}

/**
 * The consistency proof between a tree of `older` entries and one of `newer` (RFC 6962, section
 * 2.1.2). It is empty for two trees of the same size, and for an empty older tree. Throws
 * RangeError when the older tree is larger.
 */
export function proveConsistency(older: number, newer: number, read: ReadHash): Buffer[] {
  if (!isCount(older) || !isCount(newer) || older > newer)
    throw new RangeError(`a tree of ${newer} entries does not begin with one of ${older}`);
  if (older === 0) return [];
  const path: Buffer[] = [];
  let [from, to, isWhole] = [0, newer, true];
  while (older !== to) {
    const middle = from + splitOf(to - from);
    const isLeft = older <= middle;
    path.unshift(isLeft ? hashRange(middle, to, read) : hashRange(from, middle, read));
    if (isLeft) to = middle;
    else [from, isWhole] = [middle, false];
  }
  if (!isWhole) path.unshift(hashRange(from, to, read));
  return path;
}

/**
 * Whether a consistency proof shows that the newer tree begins with the older one (RFC 9162,
 * section 2.1.4.2).
 */
export function isConsistent(
  older: { size: number; root: Buffer },
  newer: { size: number; root: Buffer },
  path: readonly Buffer[],
): boolean {
  if (!isCount(older.size) || !isCount(newer.size) || older.size > newer.size) return false;
  if (older.size === newer.size) return path.length === 0 && older.root.equals(newer.root);
  if (older.size === 0) return path.length === 0 && older.root.equals(emptyRoot());
  let [position, last] = [older.size - 1, newer.size - 1];
  while (position % 2 === 1) {
    position = Math.floor(position / 2);
    last = Math.floor(last / 2);
  }
  const [first, ...rest] = position === 0 ? [older.root, ...path] : path;
  if (!first) return false;
  let [wasRoot, root] = [first, first];
  for (const sibling of rest) {
    if (last === 0) return false;
    if (position % 2 === 1 || position === last) {
      wasRoot = hashNode(sibling, wasRoot);
      root = hashNode(sibling, root);
      while (position % 2 === 0 && position !== 0) {
        position /= 2;
        last = Math.floor(last / 2);
      }
    } else root = hashNode(root, sibling);
    position = Math.floor(position / 2);
    last = Math.floor(last / 2);
  }
  return last === 0 && wasRoot.equals(older.root) && root.equals(newer.root);
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

/** The position of the hash of a whole subtree in a store to which hashes were only appended. */
export function storedIndex(level: number, index: number): number {
  // A subtree is complete with its last leaf; that leaf's hash and those of the lower levels
  // precede its own.
  return storedCount((index + 1) * 2 ** level - 1) + level;
}

/**
 * The number of hashes in a store of `size` leaves. The hash of a subtree follows that of its last
 * leaf.
 */
export function storedCount(size: number): number {
  let count = 0;
  for (let left = size; left > 0; left = Math.floor(left / 2)) count += left;
  return count;
}

/**
 * The hashes that the next leaf adds to a store of `size` leaves: its own, and those of the
 * subtrees it completes.
 */
export function hashesOf(leaf: Buffer, size: number, read: ReadHash): Buffer[] {
  const added = [leaf];
  let last = leaf;
  for (let [level, index] = [0, size]; index % 2 === 1; level += 1, index = (index - 1) / 2) {
    last = hashNode(read(level, index - 1), last);
    added.push(last);
  }
  return added;
}
