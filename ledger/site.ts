// A site as its readers see it: one locker, and the servers that store into it, each with a log of its own.
import type { ServerSettings } from '../cgi/controls.ts';
import type { Remote } from './remote.ts';

export interface Server {
  serverId: string;
  logfilesDirectory: string;
  /** It must have a custody record. */
  enableCustody: boolean;
}

export interface Site {
  /** The file that was asked for or found; undefined when there is none, and all is at its default. */
  propertiesFile: string | undefined;
  settings: ServerSettings;
  /** Every server of the site, the one that `settings` are of first. */
  servers: readonly Server[];
  /** What tells it from the others that are read with it; undefined when it is alone. */
  label: string | undefined;
  /** Who knows its jobs, when its files are elsewhere. */
  remote?: Remote;
}

/** The server that settings are of. */
export function serverOf({ serverId, logfilesDirectory, enableCustody }: ServerSettings): Server {
  return { serverId, logfilesDirectory, enableCustody };
}

/** Every server of a site, by the settings of one. */
export function serversOf(settings: ServerSettings): Server[] {
  const own = serverOf(settings);
  const others = settings.siteServers.split(',').flatMap((text): Server[] => {
    const [serverId = '', ...folder] = text.split(':');
    if (serverId === '' || serverId === own.serverId) return [];
    return [{ serverId, logfilesDirectory: folder.join(':'), enableCustody: own.enableCustody }];
  });
  return [own, ...others];
}

/** The folders with logs of a site, each once. */
export function logFolders({ servers }: Pick<Site, 'servers'>): string[] {
  return [...new Set(servers.map(({ logfilesDirectory }) => logfilesDirectory))];
}
