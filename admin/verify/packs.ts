// The packs that are on record: each must be there as it was made, or the groups that it holds are lost with it.
import { join } from 'node:path';
import type { Finding } from './finding.ts';
import { touchedAt } from './group.ts';
import { readFile, statFile } from './reading.ts';
import type { PackRecord } from './records.ts';

/** What is wrong with the archive and the manifest of a pack, which are read when they were touched since, or not at all. */
export function* checkPack(folder: string, pack: PackRecord, since: Date | 'unread' | undefined): Generator<Finding> {
  const files = [
    [`${pack.name}.tar.gz`, pack.archiveSha256],
    [`${pack.name}.jsonl`, pack.manifestSha256],
  ] as const;
  for (const [place, sha256] of files) {
    const path = join(folder, place);
    const there = statFile(path);
    const isRead = there && since !== 'unread' && touchedAt({ out: there.stats }) >= (since?.getTime() ?? 0);
    const found = isRead ? readFile(path, { algorithms: ['sha256'] }) : there;
    if (!found) yield { kind: 'pack-missing', place, detail: 'the pack is on record, and this is not there' };
    else if (found.failure) yield { kind: 'unreadable', place, detail: found.failure };
    else if (isRead && found.digests.get('sha256') !== sha256)
      yield { kind: 'pack-changed', place, detail: 'not the SHA-256 that is on record' };
  }
}
