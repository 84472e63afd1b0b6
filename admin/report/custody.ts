// What the custody records of a site say of the deposits that a report shows (docs/protocol.md, section 8), and whether these records
// themselves are still what was written.
import { closeSync, constants, openSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Chain, type ChainFault, custodyPath, STREAMS, type StreamName } from 'webjob-locker';
import type { Site } from '../site.ts';

/** What was received under the name of a group. */
export interface Deposit {
  sha256: Partial<Record<StreamName, string>>;
  receivedAt: string | undefined;
  /** What is wrong with the record of it. */
  fault: ChainFault | undefined;
}

export interface Custody {
  /** How many custody records there are, a file each. */
  files: number;
  records: number;
  /** Records and lines that are not as they were written. */
  faults: number;
  /** By the name of the group; the last one of a name. */
  deposits: Map<string, Deposit>;
}

/** Reads every custody record of the site from end to end, and keeps the deposits that are wanted. Throws the errors of system calls. */
export function readCustody(site: Site, wanted: ReadonlySet<string>): Custody {
  const custody: Custody = { files: 0, records: 0, faults: 0, deposits: new Map() };
  for (const path of listCustody(site)) {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      custody.files++;
      readFile(fd, custody, wanted);
    } finally {
      closeSync(fd);
    }
  }
  return custody;
}

/** Of every server that shares the folder of logs. */
function listCustody({ settings: { logfilesDirectory } }: Site): string[] {
  return readdirSync(logfilesDirectory)
    .map((name) => ({ name, serverId: /^nph-webjob-custody\.([A-Za-z0-9_.-]{1,64})\.jsonl$/.exec(name)?.[1] }))
    .filter(({ name, serverId }) => serverId && custodyPath('', serverId) === name)
    .map(({ name }) => join(logfilesDirectory, name))
    .sort();
}

function readFile(fd: number, custody: Custody, wanted: ReadonlySet<string>): void {
  const chain = new Chain(fd);
  for (const { facts, fault } of chain.walk()) {
    custody.records++;
    if (fault) custody.faults++;
    if (facts?.event !== 'deposit' || typeof facts.name !== 'string' || !wanted.has(facts.name)) continue;
    custody.deposits.set(facts.name, describeDeposit(facts, fault));
  }
  custody.faults += chain.findTorn().length;
}

function describeDeposit({ sha256, receivedAt }: Record<string, unknown>, fault: ChainFault | undefined): Deposit {
  const given = typeof sha256 === 'object' && sha256 !== null ? (sha256 as Record<string, unknown>) : {};
  const digests = STREAMS.flatMap((name) => {
    const digest = given[name];
    return typeof digest === 'string' && /^[0-9a-f]{64}$/.test(digest) ? [[name, digest]] : [];
  });
  return {
    sha256: Object.fromEntries(digests),
    receivedAt: typeof receivedAt === 'string' ? receivedAt : undefined,
    fault,
  };
}
