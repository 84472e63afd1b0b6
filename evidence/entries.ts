// The entries of a custody record that tell of one job.
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { type CustodyFile, readLines, readLink, searchChain } from 'webjob-locker';
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

/**
 * The same for many jobs in one walk, and the uploads of them that were adopted: an entry is told once, whatever jobs it names.
 *
 * @param isMeant is asked of job ids as the records have them
 */
export function* scanEntries(
  logs: string,
  files: readonly CustodyFile[],
  isMeant: (jobId: string) => boolean,
  since: number,
): Generator<Entry> {
  for (const file of files) {
    const fd = openCustodyFile(join(logs, file.file));
    try {
      for (const line of readLines(fd, seekRecord(fd, since))) {
        if (!namesJob(line.text, isMeant)) continue;
        const link = readLink(line);
        if (link) yield { file, text: Buffer.from(line.text, 'latin1'), facts: link.facts, to: link.to };
      }
    } finally {
      closeSync(fd);
    }
  }
}

function namesJob(text: string, isMeant: (jobId: string) => boolean): boolean {
  for (const [, quoted = ''] of text.matchAll(/"jobId":("(?:[^"\\]|\\.)*")/g))
    if (isMeant(JSON.parse(quoted))) return true;
  return false;
}
