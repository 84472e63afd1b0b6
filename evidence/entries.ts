// The entries of a custody record that tell of one job.
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { type CustodyFile, searchChain } from 'webjob-locker';
import { openCustodyFile } from './records.ts';
import { seekRecord } from './seek.ts';

/** A record in a file, with its place. */
export interface Entry {
  file: CustodyFile;
  /** Its bytes, without the newline. */
  text: Buffer;
  facts: Record<string, unknown>;
  /** Behind its newline. */
  to: number;
}

/**
 * The records that tell of a job alone: its deposits, and the uploads of it that gave way to others. What takes many uploads at once out
 * of the locker names those of others too.
 *
 * @param since milliseconds: records that are older are not looked at
 */
export function findEntries(logs: string, files: readonly CustodyFile[], jobId: string, since: number): Entry[] {
  return files.flatMap((file) => {
    const fd = openCustodyFile(join(logs, file.file));
    try {
      const found: Entry[] = [];
      for (const { record, facts, to } of searchChain(fd, seekRecord(fd, since), [JSON.stringify(jobId)]))
        if (record && facts?.jobId === jobId) found.push({ file, text: Buffer.from(record.text, 'latin1'), facts, to });
      return found;
    } finally {
      closeSync(fd);
    }
  });
}
