// The site that a command works on: what nph-webjob.cfg says, and the global options.
import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import type { ServerSettings } from '../cgi/controls.ts';
import { DEFAULT_FILES, readSettings } from '../cgi/settings.ts';
import { Failure } from './failure.ts';

export interface GlobalOptions {
  /** nph-webjob.cfg; undefined: where the server itself looks. */
  config?: string;
  json?: true;
}

export interface Site {
  /** The file that was asked for or found; undefined when there is none, and all is at its default. */
  propertiesFile: string | undefined;
  settings: ServerSettings;
}

/** The options given before the command's name. */
export function globalOptions(command: Command): GlobalOptions {
  return command.optsWithGlobals<GlobalOptions>();
}

/** Where webjobctl init --prefix debian puts it; the server is told by a SetEnv. */
const DEBIAN_FILE = '/etc/webjob/nph-webjob.cfg';

/** Where the server would look: --config, WEBJOB_PROPERTIES_FILE, the usual places and Debian's. */
export function propertiesFiles({ config }: GlobalOptions): string[] {
  const named = config ?? process.env.WEBJOB_PROPERTIES_FILE;
  return named ? [named] : [...DEFAULT_FILES, DEBIAN_FILE];
}

/** The first of them that is there. */
export function findPropertiesFile(options: GlobalOptions): string | undefined {
  const files = propertiesFiles(options);
  return files.length === 1 ? files[0] : files.find((file) => existsSync(file));
}

/** The site of a command. Throws Failure `settings`. */
export function openSite(command: Command): Site {
  const propertiesFile = findPropertiesFile(globalOptions(command));
  const { settings, problems } = readSettings(propertiesFile);
  const [first] = problems;
  if (first !== undefined)
    throw new Failure('settings', `${propertiesFile ?? 'nph-webjob.cfg'}: ${first}`, 'webjobctl configtest');
  return { propertiesFile, settings };
}
