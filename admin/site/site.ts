// The site of a command: nph-webjob.cfg and the global options.
import { existsSync, realpathSync } from 'node:fs';
import type { Command } from 'commander';
import { DEFAULT_FILES, readSettings } from '../../cgi/settings.ts';
import { Failure } from '../../cli/failure.ts';
import { type Server, type Site, serversOf } from '../../ledger/site.ts';

export interface GlobalOptions {
  /** One or more nph-webjob.cfg; undefined for the files that the server itself looks for. */
  config?: string[];
  json?: true;
  /** A database with the jobs of many sites, used instead of files. */
  ledger?: string;
}

export type { Site };

/** The options before the command's name. */
export function globalOptions(command: Command): GlobalOptions {
  return command.optsWithGlobals<GlobalOptions>();
}

/**
 * The nph-webjob.cfg that `webjobctl init --prefix debian` makes; a SetEnv names it to the server.
 */
const DEBIAN_FILE = '/etc/webjob/nph-webjob.cfg';

/**
 * The nph-webjob.cfg of a command for one site: --config, WEBJOB_PROPERTIES_FILE, or the first
 * existing file of the original's paths and Debian's.
 */
export function findPropertiesFile(command: Command): string | undefined {
  if (globalOptions(command).ledger !== undefined)
    throw new Failure('usage', `${command.name()} reads the files of a site`, 'run it there, without --ledger');
  const [named, another] = globalOptions(command).config ?? [process.env.WEBJOB_PROPERTIES_FILE];
  if (another !== undefined)
    throw new Failure('usage', `${command.name()} works on one site at a time`, 'give --config once');
  return named || [...DEFAULT_FILES, DEBIAN_FILE].find((file) => existsSync(file));
}

/** The site of a command. Throws Failure `settings`, and `usage` when several are named. */
export function openSite(command: Command): Site {
  return readSite(findPropertiesFile(command));
}

/**
 * The sites of a command that reads several. Servers that store into one locker are one site, with
 * the settings of the first. Throws Failure `settings`.
 */
export function openSites(command: Command): Site[] {
  const { config = [] } = globalOptions(command);
  if (config.length < 2) return [openSite(command)];
  const lockers = new Map<string, Site & { servers: Server[] }>();
  for (const file of config) {
    const site = readSite(file, file);
    const locker = realLocker(site);
    const known = lockers.get(locker);
    if (!known) lockers.set(locker, { ...site, servers: [...site.servers] });
    else known.servers.push(...site.servers.filter((server) => !known.servers.some((one) => isSame(one, server))));
  }
  const sites = [...lockers.values()];
  return sites.length > 1 ? sites : sites.map((site) => ({ ...site, label: undefined }));
}

function isSame(a: Server, b: Server): boolean {
  return a.serverId === b.serverId && a.logfilesDirectory === b.logfilesDirectory;
}

function realLocker({ settings: { incomingDirectory } }: Site): string {
  try {
    return realpathSync(incomingDirectory);
  } catch {
    // Whatever reads the locker reports the problem.
    return incomingDirectory;
  }
}

/** Reads a site from its nph-webjob.cfg. Throws Failure `settings`. */
export function readSite(propertiesFile: string | undefined, label?: string): Site {
  // The server would use its defaults, but an operator who names a file means that site.
  if (propertiesFile !== undefined && !existsSync(propertiesFile))
    throw new Failure('settings', `${propertiesFile} does not exist`, 'webjobctl init creates one');
  const { settings, problems } = readSettings(propertiesFile);
  const [first] = problems;
  if (first !== undefined)
    throw new Failure('settings', `${propertiesFile ?? 'nph-webjob.cfg'}: ${first}`, 'webjobctl configtest');
  return { propertiesFile, settings, servers: serversOf(settings), label };
}
