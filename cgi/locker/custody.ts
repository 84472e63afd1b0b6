// The custody record: the chained lines of deposits, as it lies in the folder of logs (docs/protocol.md, section 8).
import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { type ChainedFacts, type ChainedRecord, formatChained, nextChained } from 'webjob-protocol';
import { newHash } from './digest.ts';
import { syncFile, syncOpened, withFolder } from './durable.ts';
import { LockerFailure } from './failure.ts';

export {
  type ChainedFacts as CustodyFacts,
  type ChainedRecord as CustodyRecord,
  MAX_RECORD_BYTES,
  parseChained as parseCustody,
} from 'webjob-protocol';

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_RDWR } = constants;
/** The custody record of one server: every server that shares a folder of logs has its own. */
export function custodyPath(logfilesDirectory: string, serverId: string): string {
  return `${logfilesDirectory}/nph-webjob-custody.${serverId}.jsonl`;
}

/** Whose custody record a file in LogfilesDirectory is, by its name; undefined for any other file. */
export function custodyOwner(file: string): string | undefined {
  return /^nph-webjob-custody\.([A-Za-z0-9_.-]{1,64})\.jsonl$/.exec(file)?.[1];
}

/** The line of a record, without its newline. */
export function formatCustody(covers: ChainedRecord['covers'], prev: string, facts: ChainedFacts): string {
  return formatChained(covers, prev, facts, newHash);
}

/**
 * Appends a record and puts it on disk. The file must be there unless it may be created. Throws LockerFailure `full` when only a part of
 * it fitted, and the error of a system call: nothing is then vouched for, and the next record begins a new line.
 */
export function appendCustody(path: string, facts: ChainedFacts, mayCreate = false): void {
  const fd = openCustody(path, mayCreate);
  try {
    const read = (buffer: Uint8Array, offset: number): number => readSync(fd, buffer, 0, buffer.length, offset);
    const bytes = nextChained({ size: fstatSync(fd).size, read }, facts, newHash);
    if (writeSync(fd, bytes) < bytes.length) throw new LockerFailure('full', 'the custody record was cut short');
    syncFile(fd);
  } finally {
    closeSync(fd);
  }
}

function openCustody(path: string, mayCreate: boolean): number {
  const flags = O_RDWR | O_APPEND | O_NOFOLLOW;
  try {
    return openSync(path, flags);
  } catch (error) {
    if (!mayCreate || (error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return withFolder(dirname(path), (folder) => {
    const fd = openSync(path, flags | O_CREAT, 0o644);
    try {
      syncOpened(folder);
      return fd;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  });
}
