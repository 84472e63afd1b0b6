// A site as commands read it: one locker, and the servers that store uploads in it, each with its
// own log.
import type { ServerSettings } from '../cgi/setting-table.ts';
import type { Remote } from './remote.ts';

export interface Server {
  serverId: string;
  logfilesDirectory: string;
  /** Whether the server must have a custody record. */
  enableCustody: boolean;
}

export interface Site {
  /**
   * The nph-webjob.cfg that was named or found; undefined when there is none, so that all settings
   * have their defaults.
   */
  propertiesFile: string | undefined;
  settings: ServerSettings;
  /** Every server of the site. The first is the one that `settings` describes. */
  servers: readonly Server[];
  /**
   * Distinguishes the site from others that are read together with it; undefined for a single site.
   */
  label: string | undefined;
  /** The database with the site's jobs, when the site's files are on another machine. */
  remote?: Remote;
}

/** Returns the server that the settings describe. */
export function serverOf({ serverId, logfilesDirectory, enableCustody }: ServerSettings): Server {
  return { serverId, logfilesDirectory, enableCustody };
}

/** Every server of a site, from the settings of one. */
export function serversOf(settings: ServerSettings): Server[] {
  const own = serverOf(settings);
  const others = settings.siteServers.split(',').flatMap((text): Server[] => {
    const [serverId = '', ...folder] = text.split(':');
    if (serverId === '' || serverId === own.serverId) return [];
    return [{ serverId, logfilesDirectory: folder.join(':'), enableCustody: own.enableCustody }];
  });
  return [own, ...others];
}

/** The log directories of a site, each once. */
export function logFolders({ servers }: Pick<Site, 'servers'>): string[] {
  return [...new Set(servers.map(({ logfilesDirectory }) => logfilesDirectory))];
}
