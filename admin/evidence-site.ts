// The sites of a command as evidence sees them: servers that store into one locker are one site, each with its own folder of logs.
import { realpathSync } from 'node:fs';
import { packsFolder } from '../archive/packs.ts';
import { Evidence, type EvidenceServer, type EvidenceSite } from '../evidence/evidence.ts';
import { Failure } from './failure.ts';
import type { Site } from './site.ts';

/** The lockers of these sites, each once. Throws Failure `failed` for a locker that is not there. */
export function joinSites(sites: readonly Site[]): EvidenceSite[] {
  const lockers = new Map<string, EvidenceSite & { servers: EvidenceServer[] }>();
  for (const { settings } of sites) {
    const { incomingDirectory, logfilesDirectory, serverId, enableCustody } = settings;
    const locker = findLocker(incomingDirectory);
    const site = lockers.get(locker) ?? { incomingDirectory, servers: [], packsFolder: packsFolder(settings) };
    site.servers.push({ logfilesDirectory, serverId: enableCustody ? serverId : undefined });
    lockers.set(locker, site);
  }
  return [...lockers.values()];
}

/** What can be said of the uploads of one site. Throws Failure `failed`. */
export function openEvidence(site: Site): Evidence {
  const [joined] = joinSites([site]);
  try {
    if (joined) return new Evidence(joined);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    throw new Failure('failed', message, undefined, { cause: error });
  }
  throw new Failure('failed', 'there is no locker');
}

function findLocker(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    throw new Failure('failed', `${path}: ${(error as NodeJS.ErrnoException).code}`, undefined, { cause: error });
  }
}
