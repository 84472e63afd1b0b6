// ServerSettings: the settings of nph-webjob.cfg, and of overrides for a client or command, that
// apply to a request (docs/protocol.md, section 4).
import { readFileSync } from 'node:fs';
import { type Entry, parseKeyValue } from 'webjob-conf';
import { CONTROLS, type Control, type ServerSettings } from './setting-table.ts';

/**
 * The values in a file by the setting's name in lower case; the place (`line 3`) is for messages.
 */
export type GivenControls = ReadonlyMap<string, { value: string; place: string }>;

/** The files that the original looks for, in order, when WEBJOB_PROPERTIES_FILE is not set. */
export const DEFAULT_FILES = ['/usr/local/apache/etc/nph-webjob.cfg', '/var/webjob/config/nph-webjob/nph-webjob.cfg'];

/** The values in the main file, the resulting settings, and the problems in it. */
export interface Configuration {
  given: GivenControls;
  settings: ServerSettings;
  problems: string[];
}

/**
 * Reads the settings for a request. Never throws: every problem is listed in `problems` and its
 * setting has its default, so that the refusal can still be logged where the rest of the file says.
 */
export function readSettings(propertiesFile: string | undefined, defaultFiles = DEFAULT_FILES): Configuration {
  const problems: string[] = [];
  const text = readFirstFile(propertiesFile === undefined ? defaultFiles : [propertiesFile], problems);
  const given = collectControls(parseKeyValue(text).entries);
  return { given, settings: buildSettings(given, problems), problems };
}

/** Parses the text of nph-webjob.cfg; problems are added to `problems`. */
export function parseSettings(text: string, problems: string[]): ServerSettings {
  return buildSettings(collectControls(parseKeyValue(text).entries), problems);
}

/**
 * Unknown keys are kept and have no effect; the last of a repeated key counts. `prefix` precedes
 * the line number.
 */
export function collectControls(entries: Entry[], prefix = ''): GivenControls {
  return new Map(entries.map(({ key, value, line }) => [key.toLowerCase(), { value, place: `${prefix}line ${line}` }]));
}

/**
 * Builds settings from values. Never throws: problems are added to `problems`, and their settings
 * have the defaults.
 */
export function buildSettings(given: GivenControls, problems: string[]): ServerSettings {
  const pairs = CONTROLS.map((control) => {
    const value = readValue(control, given, problems);
    return [propertyOf(control.key), control.parse ? control.parse(value) : value];
  });
  const settings = Object.fromEntries(pairs) as ServerSettings;
  placeDirectories(settings);
  checkCommands(settings, problems);
  return settings;
}

/** The property of a setting: `requireUser` for `RequireUser`. */
export function propertyOf<Key extends string>(key: Key): Uncapitalize<Key> {
  return (key.charAt(0).toLowerCase() + key.slice(1)) as Uncapitalize<Key>;
}

function readValue({ key, default: value, allowed }: Control, given: GivenControls, problems: string[]): string {
  const found = given.get(key.toLowerCase());
  if (found === undefined) return value;
  if (new RegExp(`^(?:${allowed})$`).test(found.value)) return found.value;
  problems.push(`${key} in ${found.place} has a value that is not allowed`);
  return value;
}

/** Replaces `<Base>`, with which only defaults begin, by BaseDirectory. */
function placeDirectories(settings: ServerSettings): void {
  const base = settings.baseDirectory.replace(/\/+$/, '');
  settings.baseDirectory = base;
  for (const name of ['config', 'dynamic', 'incoming', 'limits', 'logfiles', 'profiles', 'spool'] as const) {
    const path = settings[`${name}Directory`];
    if (path.startsWith('<')) settings[`${name}Directory`] = base + path.slice('<Base>'.length);
  }
}

/**
 * Every command that the server may run, and the setting with the directory of the files passed to
 * it.
 */
const COMMANDS = [
  ['GetHook', 'ProfilesDirectory'],
  ['PutHook', 'IncomingDirectory'],
  ['GetTrigger', undefined],
  ['PutTrigger', 'IncomingDirectory'],
] as const;

/**
 * Checks that every enabled command has a command line, and that no path passed to it contains a
 * character that a shell would interpret.
 */
function checkCommands(settings: ServerSettings, problems: string[]): void {
  for (const [name, directory] of COMMANDS) {
    if (!settings[propertyOf(`${name}Enable`)]) continue;
    if (settings[propertyOf(`${name}CommandLine`)] === '')
      problems.push(`${name}CommandLine is missing, and ${name}Enable=Y`);
    if (directory && !/^[A-Za-z0-9_./:+@=,-]+$/.test(settings[propertyOf(directory)]))
      problems.push(`${directory} contains a character that ${name}CommandLine must not receive`);
  }
}

/**
 * Reads the first of the files that exists. Without a file all settings have their defaults; an
 * unreadable one is a problem.
 */
function readFirstFile(paths: string[], problems: string[]): string {
  for (const path of paths) {
    try {
      return readFileSync(path, 'utf8');
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT') continue;
      problems.push(`the settings file cannot be read: ${code}`);
      return '';
    }
  }
  return '';
}
