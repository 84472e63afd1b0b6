// Proofs that a custody record contained entries when a checkpoint was made (c2sp.org/tlog-proof).
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { serverOf } from '../../evidence/checkpoint.ts';
import type { Entry } from '../../evidence/entries.ts';
import { hashLeaf, isIncluded } from '../../evidence/merkle.ts';
import { formatProof } from '../../evidence/tlog.ts';
import { completeTree, type KeptCheckpoint, openTree } from './logs.ts';

export interface EntryProved {
  entry: Entry;
  /** The checkpoint that covers the entry. */
  checkpoint: KeptCheckpoint;
  origin: string;
  size: number;
  index: number;
  /** The proof with the entry in it. */
  text: string;
}

/**
 * Proves entries of a server's record, each by the first of these checkpoints that covers it.
 * Entries that none covers are left out.
 *
 * @throws Failure `findings` for a record that does not match the checkpoint
 */
export function* proveEntries(
  settings: ServerSettings,
  serverId: string,
  entries: readonly Entry[],
  checkpoints: readonly KeptCheckpoint[],
): Generator<EntryProved> {
  const tree = openTree(settings, serverId);
  try {
    const own = checkpoints.filter(({ origin }) =>
      tree.isNew ? serverOf(origin) === serverId : origin === tree.origin,
    );
    const complete = new Set<KeptCheckpoint>();
    for (const entry of entries) {
      const isBefore = ({ size }: KeptCheckpoint): boolean =>
        (tree.find(entry.file.number, entry.to) ?? Number.POSITIVE_INFINITY) < size;
      const found = own.find((checkpoint) => {
        // A larger checkpoint may already have shown that this one does not cover it.
        if (checkpoint.size <= tree.size && !isBefore(checkpoint)) return false;
        if (!complete.has(checkpoint)) completeTree(tree, settings, serverId, checkpoint);
        complete.add(checkpoint);
        return isBefore(checkpoint);
      });
      const index = found && tree.find(entry.file.number, entry.to);
      if (!found || index === undefined) continue;
      const { origin, size } = found;
      const path = tree.proveInclusion(index, size);
      if (!isIncluded({ ...found, index }, hashLeaf(entry.text), path))
        throw new Failure('findings', `entry ${index} of ${tree.origin} has changed since the checkpoint was made`);
      const text = formatProof({ index, path, entry: entry.text, checkpoint: found.text });
      yield { entry, checkpoint: found, origin, size, index, text };
    }
  } finally {
    tree.close();
  }
}
