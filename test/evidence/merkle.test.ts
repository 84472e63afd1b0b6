// Merkle trees (RFC 6962): the published hashes, every proof of every small tree, and that
// everything else is rejected.
import assert from 'node:assert/strict';
import { createHash, randomBytes, randomInt } from 'node:crypto';
import { describe, it } from 'node:test';
import {
  emptyRoot,
  hashesOf,
  hashLeaf,
  hashNode,
  isConsistent,
  isIncluded,
  proveConsistency,
  proveInclusion,
  type ReadHash,
  rootOf,
  storedCount,
  storedIndex,
} from '../../evidence/merkle.ts';

/** The hashes that growing trees have in common, as they are appended. */
function growTree(entries: readonly Buffer[]): { read: ReadHash; leaves: Buffer[] } {
  const stored: Buffer[] = [];
  const read: ReadHash = (level, index) => {
    const found = stored[storedIndex(level, index)];
    assert.ok(found, `level ${level}, index ${index}`);
    return found;
  };
  const leaves = entries.map((entry, index) => {
    assert.equal(storedCount(index), stored.length);
    stored.push(...hashesOf(hashLeaf(entry), index, read));
    return hashLeaf(entry);
  });
  return { read, leaves };
}

/** The root as RFC 6962 defines it, computed from all leaves. */
function plainRoot(leaves: readonly Buffer[]): Buffer {
  const [first] = leaves;
  if (!first) return createHash('sha256').digest();
  if (leaves.length === 1) return first;
  let half = 1;
  while (half * 2 < leaves.length) half *= 2;
  return hashNode(plainRoot(leaves.slice(0, half)), plainRoot(leaves.slice(half)));
}

describe('the Merkle tree of RFC 6962', () => {
  // The test entries and roots of certificate transparency logs.
  const entries = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f'];
  const roots = [
    'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
    'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
    'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
    'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
    '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
    '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
    'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
    '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
  ];

  it('has the published roots', () => {
    const { read } = growTree(entries.map((text) => Buffer.from(text, 'hex')));
    assert.deepEqual(
      roots.map((_, size) => rootOf(size, read).toString('hex')),
      roots,
    );
  });

  const SIZE = 300;
  const all = Array.from({ length: SIZE }, (_, index) => Buffer.from(`entry ${index}`));
  const { read, leaves } = growTree(all);
  const sized = Array.from({ length: SIZE + 1 }, (_, size) => ({ size, root: rootOf(size, read) }));
  const at = (size: number): { size: number; root: Buffer } => sized[size] ?? { size: -1, root: emptyRoot() };

  it('has the root of its definition at every size', () => {
    for (const { size, root } of sized) assert.deepEqual(root, plainRoot(leaves.slice(0, size)), `of ${size}`);
  });

  it('proves every entry of every tree of 1 to 300, for its own root and place only', () => {
    for (let size = 1; size <= SIZE; size += 1)
      for (let index = 0; index < size; index += 1) {
        const path = proveInclusion(index, size, read);
        const leaf = leaves[index] ?? emptyRoot();
        assert.ok(isIncluded({ index, ...at(size) }, leaf, path), `${index} of ${size}`);
        if (size === 1 || index % 5 !== 0) continue;
        const other = (index + 1) % size;
        assert.ok(!isIncluded({ index: other, ...at(size) }, leaf, path), `${index} of ${size} as ${other}`);
        assert.ok(!isIncluded({ index, ...at(size) }, leaves[other] ?? leaf, path), `${other} of ${size} as ${index}`);
        assert.ok(!isIncluded({ index, ...at(size - 1) }, leaf, path), `${index} of ${size} in ${size - 1}`);
      }
  });

  it('proves for every two sizes that the longer tree begins with the shorter', () => {
    for (let newer = 0; newer <= SIZE; newer += 1)
      for (let older = 0; older <= newer; older += 1) {
        const path = proveConsistency(older, newer, read);
        assert.ok(isConsistent(at(older), at(newer), path), `${older} to ${newer}`);
        if (older > 0 && older < newer && older % 5 === 0)
          assert.ok(!isConsistent({ size: older, root: at(newer).root }, at(newer), path), `another ${older}`);
      }
  });

  it('accepts none of 10,000 changed proofs', () => {
    for (let round = 0; round < 10_000; round += 1) {
      const size = randomInt(2, SIZE + 1);
      const index = randomInt(size);
      const isOfEntry = round % 2 === 0;
      const older = randomInt(1, size);
      const path = isOfEntry ? proveInclusion(index, size, read) : proveConsistency(older, size, read);
      const bad = spoil(path);
      const leaf = leaves[index] ?? emptyRoot();
      assert.ok(
        !(isOfEntry ? isIncluded({ index, ...at(size) }, leaf, bad) : isConsistent(at(older), at(size), bad)),
        JSON.stringify({ isOfEntry, size, index, older, bad: bad.map((hash) => hash.toString('hex')) }),
      );
    }
  });

  it('has no proof for what it lacks, and accepts no invalid size', () => {
    assert.throws(() => proveInclusion(3, 3, read), RangeError);
    assert.throws(() => proveInclusion(-1, 3, read), RangeError);
    assert.throws(() => proveConsistency(4, 3, read), RangeError);
    for (const size of [0, -1, 1.5, Number.NaN, 2 ** 53])
      assert.ok(
        !isIncluded({ index: 0, size, root: leaves[0] ?? emptyRoot() }, leaves[0] ?? emptyRoot(), []),
        `${size}`,
      );
    assert.ok(!isConsistent(at(3), at(2), []));
    const [leaf = emptyRoot()] = leaves;
    assert.ok(!isIncluded({ index: 0, size: 2, root: leaf }, leaf, []), 'a path that is too short');
    assert.ok(!isConsistent(at(3), { size: 3, root: at(4).root }, []), 'two trees of one size');
    assert.ok(!isConsistent(at(3), at(3), [leaf]), 'a path where none is');
    assert.ok(!isConsistent({ size: 0, root: leaf }, at(3), []), 'a tree of nothing with a root of something');
  });
});

/** A path of hashes with a bit changed, one added, one removed, or two exchanged. */
function spoil(path: readonly Buffer[]): Buffer[] {
  const copy = path.map((hash) => Buffer.from(hash));
  const index = randomInt(copy.length);
  const hash = copy[index] ?? Buffer.alloc(0);
  const kind = randomInt(4);
  if (kind === 0) hash[randomInt(hash.length)] = (hash[0] ?? 0) ^ 0x55 ^ randomInt(1, 256);
  if (kind === 1) copy.splice(index, 1);
  if (kind === 2) copy.splice(index, 0, randomBytes(32));
  if (kind === 3) {
    const next = (index + 1) % copy.length;
    if (next === index) copy.push(hash);
    else [copy[index], copy[next]] = [copy[next] ?? hash, hash];
  }
  const isSame = copy.length === path.length && copy.every((one, place) => path[place]?.equals(one));
  return isSame ? [...copy, randomBytes(32)] : copy;
}
