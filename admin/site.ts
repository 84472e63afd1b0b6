// The site that a command works on: what nph-webjob.cfg says, and the global options.
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
  /** The file that was asked for, undefined for the first of the usual places. */
  propertiesFile: string | undefined;
  settings: ServerSettings;
}

/** The options given before the command's name. */
export function globalOptions(command: Command): GlobalOptions {
  return command.optsWithGlobals<GlobalOptions>();
}

/** Where the server would look: --config, WEBJOB_PROPERTIES_FILE, the usual places. */
export function propertiesFiles({ config }: GlobalOptions): string[] {
  const named = config ?? process.env.WEBJOB_PROPERTIES_FILE;
  return named ? [named] : DEFAULT_FILES;
}

/** The site of a command. Throws Failure `settings`. */
export function openSite(command: Command): Site {
  const [file, ...others] = propertiesFiles(globalOptions(command));
  const propertiesFile = others.length === 0 ? file : undefined;
  const { settings, problems } = readSettings(propertiesFile);
  const [first] = problems;
  if (first !== undefined)
    throw new Failure('settings', `${propertiesFile ?? 'nph-webjob.cfg'}: ${first}`, 'webjobctl configtest');
  return { propertiesFile, settings };
}
