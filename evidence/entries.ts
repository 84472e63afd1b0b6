// The entries of a custody record that concern one job.
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { type CustodyFile, readLines, readLink, searchChain } from 'webjob-locker';
import { openCustodyFile } from './records.ts';
import { seekRecord } from './seek.ts';

/** A record with its place in the file. */
export interface Entry {
  file: CustodyFile;
  /** The bytes of the record without its newline. */
  text: Buffer;
  facts: Record<string, unknown>;
  /** The offset after the newline. */
  to: number;
}

/**
 * Finds the records that concern one job only: its deposits and its replaced uploads. Records that
 * remove several uploads are left out, because they name other jobs too.
 *
 * @param since milliseconds: older records are ignored
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
 * Finds the entries of many jobs in one walk, including the adoption of their uploads. Each entry
 * is returned once, however many of the jobs it names.
 *
 * @param isMeant called with job ids as they are written in the records
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
