// ServerSettings: what nph-webjob.cfg, and the overrides for one client or command, mean for a request (docs/protocol.md, section 4).
import { readFileSync } from 'node:fs';
import { type Entry, parseKeyValue } from 'webjob-conf';
import { CONTROLS, type Control, type ServerSettings } from './controls.ts';

/** What files say, by the control's key in lower case; the place (`line 3`) is for messages. */
export type GivenControls = ReadonlyMap<string, { value: string; place: string }>;

/** Where the original looked, in order, when WEBJOB_PROPERTIES_FILE does not say. */
export const DEFAULT_FILES = ['/usr/local/apache/etc/nph-webjob.cfg', '/var/webjob/config/nph-webjob/nph-webjob.cfg'];

/** What the main file gives, the settings it makes, and what is wrong with it. */
export interface Configuration {
  given: GivenControls;
  settings: ServerSettings;
  problems: string[];
}

/**
 * Reads the settings a request runs under. Never throws: every problem is named in `problems` and its control stands at its
 * default, so that the refusal can still be logged where the rest of the file says.
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

/** Unknown keys stay and mean nothing, the last of a repeated key wins. `prefix` goes before the number of the line. */
export function collectControls(entries: Entry[], prefix = ''): GivenControls {
  return new Map(entries.map(({ key, value, line }) => [key.toLowerCase(), { value, place: `${prefix}line ${line}` }]));
}

/** The settings that controls make. Never throws: problems are added to `problems`, their controls stand at the defaults. */
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

/** `RequireUser` is `requireUser`. */
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

/** Only a default begins with `<Base>`. */
function placeDirectories(settings: ServerSettings): void {
  const base = settings.baseDirectory.replace(/\/+$/, '');
  settings.baseDirectory = base;
  for (const name of ['config', 'dynamic', 'incoming', 'limits', 'logfiles', 'profiles', 'spool'] as const) {
    const path = settings[`${name}Directory`];
    if (path.startsWith('<')) settings[`${name}Directory`] = base + path.slice('<Base>'.length);
  }
}

/** Every command that may be run, and the directory of the files it gets. */
const COMMANDS = [
  ['GetHook', 'ProfilesDirectory'],
  ['PutHook', 'IncomingDirectory'],
  ['GetTrigger', undefined],
  ['PutTrigger', 'IncomingDirectory'],
] as const;

/** A command that is enabled is there, and the paths it gets hold nothing that a shell would take apart. */
function checkCommands(settings: ServerSettings, problems: string[]): void {
  for (const [name, directory] of COMMANDS) {
    if (!settings[propertyOf(`${name}Enable`)]) continue;
    if (settings[propertyOf(`${name}CommandLine`)] === '')
      problems.push(`${name}CommandLine is missing, and ${name}Enable=Y`);
    if (directory && !/^[A-Za-z0-9_./:+@=,-]+$/.test(settings[propertyOf(directory)]))
      problems.push(`${directory} holds a character that ${name}CommandLine may not see`);
  }
}

/** The first of the files that exists; a missing file means built-in defaults, an unreadable one is a problem. */
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
