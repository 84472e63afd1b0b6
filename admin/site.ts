// The site that a command works on: what nph-webjob.cfg says, and the global options.
import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import type { ServerSettings } from '../cgi/controls.ts';
import { DEFAULT_FILES, readSettings } from '../cgi/settings.ts';
import { Failure } from './failure.ts';

export interface GlobalOptions {
  /** nph-webjob.cfg, of several sites several; undefined: where the server itself looks. */
  config?: string[];
  json?: true;
}

export interface Site {
  /** The file that was asked for or found; undefined when there is none, and all is at its default. */
  propertiesFile: string | undefined;
  settings: ServerSettings;
  /** What tells it from the others that are read with it; undefined when it is alone. */
  label: string | undefined;
}

/** The options given before the command's name. */
export function globalOptions(command: Command): GlobalOptions {
  return command.optsWithGlobals<GlobalOptions>();
}

/** Where webjobctl init --prefix debian puts it; the server is told by a SetEnv. */
const DEBIAN_FILE = '/etc/webjob/nph-webjob.cfg';

/** The file of the one site of a command: --config, WEBJOB_PROPERTIES_FILE, the first that is there of the usual places and Debian's. */
export function findPropertiesFile(command: Command): string | undefined {
  const [named, another] = globalOptions(command).config ?? [process.env.WEBJOB_PROPERTIES_FILE];
  if (another !== undefined)
    throw new Failure('usage', `${command.name()} works on one site at a time`, 'give --config once');
  return named || [...DEFAULT_FILES, DEBIAN_FILE].find((file) => existsSync(file));
}

/** The site of a command. Throws Failure `settings`, and `usage` when several are named. */
export function openSite(command: Command): Site {
  return readSite(findPropertiesFile(command), undefined);
}

/** The sites of a command that reads several as one. Throws Failure `settings`. */
export function openSites(command: Command): Site[] {
  const { config = [] } = globalOptions(command);
  return config.length > 1 ? config.map((file) => readSite(file, file)) : [openSite(command)];
}

function readSite(propertiesFile: string | undefined, label: string | undefined): Site {
  // The server would go on with its defaults; whoever named a file means that site and no other.
  if (propertiesFile !== undefined && !existsSync(propertiesFile))
    throw new Failure('settings', `${propertiesFile} is not there`, 'webjobctl init makes one');
  const { settings, problems } = readSettings(propertiesFile);
  const [first] = problems;
  if (first !== undefined)
    throw new Failure('settings', `${propertiesFile ?? 'nph-webjob.cfg'}: ${first}`, 'webjobctl configtest');
  return { propertiesFile, settings, label };
}
