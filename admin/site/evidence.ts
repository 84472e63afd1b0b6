// The sites of a command in the form that evidence/ needs: servers that store into one locker are
// one site, each with its own log directory.
import { realpathSync } from 'node:fs';
import { join } from 'node:path';
import { makeFolder } from 'webjob-locker/durable';
import { packsFolder } from '../../archive/packs.ts';
import { Failure } from '../../cli/failure.ts';
import { withLock } from '../../cli/lockfile.ts';
import { Evidence, type EvidenceOptions, type EvidenceServer, type EvidenceSite } from '../../evidence/evidence.ts';
import { ResultKeys, resultKeysFolder } from '../../evidence/result-keys.ts';
import type { WitnessState } from '../../evidence/witness.ts';
import type { Site } from './site.ts';
import { keepFolder } from './site-lock.ts';
import { isRoot } from './users.ts';

/**
 * The lockers of these sites, each once. Throws Failure `failed` for a locker that does not exist.
 */
export function joinSites(sites: readonly Site[]): EvidenceSite[] {
  const lockers = new Map<string, EvidenceSite & { servers: EvidenceServer[] }>();
  const resultKeys = new ResultKeys(
    sites.flatMap(({ propertiesFile }) => (propertiesFile === undefined ? [] : resultKeysFolder(propertiesFile))),
  );
  for (const { settings, servers } of sites) {
    const { incomingDirectory } = settings;
    const locker = findLocker(incomingDirectory);
    const packs = packsFolder(settings);
    const site = lockers.get(locker) ?? { incomingDirectory, servers: [], packsFolder: packs, resultKeys };
    // This server stores nothing about the other servers of a site.
    for (const { logfilesDirectory, serverId, enableCustody } of servers)
      site.servers.push({
        logfilesDirectory,
        serverId: enableCustody ? serverId : undefined,
        witnessFolder: keepFolder(settings),
      });
    lockers.set(locker, site);
  }
  return [...lockers.values()];
}

/** Opens the evidence of one site. Throws Failure `failed`. */
export function openEvidence(site: Site, options: Pick<EvidenceOptions, 'isNow' | 'only' | 'watch'> = {}): Evidence {
  const [joined] = joinSites([site]);
  try {
    if (joined) return new Evidence(joined, options);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    throw new Failure('failed', message, undefined, { cause: error });
  }
  throw new Failure('failed', 'there is no locker');
}

/**
 * Saves verified records to the witness, when this process runs as root. Throws Failure `failed`.
 */
export function tellWitness(evidence: Evidence, isAdopted = false): void {
  const [first] = evidence.witnesses;
  if (!isRoot() || !first || !['asked', 'none'].includes(evidence.witnessState)) return;
  try {
    makeFolder(first.witness.folder);
    withLock(join(first.witness.folder, 'witness'), () => evidence.tellWitness(isAdopted));
  } catch (error) {
    const { syscall, message } = error as NodeJS.ErrnoException;
    if (syscall === undefined) throw error;
    throw new Failure('failed', `the witness: ${message}`, undefined, { cause: error });
  }
}

/** The caveat about the witness for a reader; undefined when the witness was used. */
export function describeWitness(state: WitnessState): string | undefined {
  const sentences: Record<WitnessState, string | undefined> = {
    asked: undefined,
    // Root has made one by now.
    none: isRoot()
      ? undefined
      : 'root has kept no witness so far: only a checkpoint shows whether the custody record was truncated',
    unreadable: 'the witness is for root alone: only a checkpoint shows whether the custody record was truncated',
    untrusted: 'users other than root can write there, so no witness is kept or used',
  };
  return sentences[state];
}

function findLocker(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    throw new Failure('failed', `${path}: ${(error as NodeJS.ErrnoException).code}`, undefined, { cause: error });
  }
}
