// The limits of a client and its use today, as the server counts it. The files belong to the web
// user, who can replace them by links, so every path comes from reach().
import { closeSync, constants, fstatSync, openSync, readdirSync, rmdirSync, unlinkSync } from 'node:fs';
import { holdsSlot, nameReached, reach, reachFolder, readUse, type Use } from 'webjob-locker';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';

/** A limit, and how much of it is used. */
export interface Limit {
  limit: number;
  used: number;
}

/** The limits of a client; null for a setting without a limit, for which nothing is counted. */
export interface ClientLimits {
  /** Requests on this server at this moment. */
  requests: Limit | null;
  /** Uploads to all servers of the site on this day (UTC). */
  uploads: Limit | null;
  bytes: Limit | null;
}

/** Reads the limits of a client. Throws Failure `failed`. */
export function readLimits(settings: ServerSettings, client: string, now = new Date()): ClientLimits {
  const { limitsDirectory, serverId, maxRequestsAtOnce, maxUploadsPerDay, maxBytesPerDay } = settings;
  try {
    const names = readNames(limitsDirectory, client);
    const pathOf = (name: string): string => reach(limitsDirectory, `${client}/${name}`);
    const slots = names.filter((name) => name.startsWith(`slot-${serverId}-`) && holdsSlot(pathOf(name)));
    const today = `day-${now.toISOString().slice(0, 10).replaceAll('-', '')}-`;
    const used = { bytes: 0, uploads: 0 };
    for (const name of names.filter((one) => one.startsWith(today))) {
      const { bytes, uploads } = readDay(pathOf(name));
      used.bytes += bytes;
      used.uploads += uploads;
    }
    const limited = (limit: number, count: number): Limit | null => (limit === 0 ? null : { limit, used: count });
    return {
      requests: limited(maxRequestsAtOnce, slots.length),
      uploads: limited(maxUploadsPerDay, used.uploads),
      bytes: limited(maxBytesPerDay, used.bytes),
    };
  } catch (error) {
    throw new Failure('failed', `LimitsDirectory: the counts of ${client} cannot be read: ${describe(error)}`);
  }
}

/**
 * Removes the counts of a client, and no other file. Returns why some are left; undefined when all
 * were removed.
 */
export function removeLimits({ limitsDirectory }: ServerSettings, client: string): string | undefined {
  try {
    for (const name of readNames(limitsDirectory, client))
      if (/^(?:slot|day)-/.test(name)) unlinkSync(reach(limitsDirectory, `${client}/${name}`));
    rmdirSync(reach(limitsDirectory, client));
    return undefined;
  } catch (error) {
    return errorCode(error) === 'ENOENT' ? undefined : describe(error);
  }
}

function readNames(limitsDirectory: string, client: string): string[] {
  try {
    return readdirSync(reachFolder(limitsDirectory, client));
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return [];
    throw error;
  }
}

function readDay(path: string): Use {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  try {
    if (!fstatSync(fd).isFile()) throw new Failure('failed', `${nameReached(path)} is not a file`);
    return readUse(fd);
  } finally {
    closeSync(fd);
  }
}

function describe(error: unknown): string {
  return nameReached((error as Error).message);
}
