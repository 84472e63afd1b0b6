// ServerSettings from nph-webjob.cfg: THE table of controls. Shipped file, man page and tests are checked against it, and no other
// file knows a key, a pattern or a default (docs/protocol.md, section 4).
import { readFileSync } from 'node:fs';
import { parseKeyValue } from 'webjob-conf';
import { NAME_PATTERNS } from 'webjob-protocol';
import { NAME_FORMAT_PATTERN } from './tokens.ts';

const YES_NO = '[YNyn]';
const ABSOLUTE_PATH = '/[^\\x00-\\x1f\\x7f]*';
const FOLDER = '(?!\\.{1,2}(?::|$))[A-Za-z0-9_.-]+';

/** Every control: its name, the values it takes (a pattern, anchored at both ends), its default and what it means. */
export const CONTROLS = [
  { key: 'BaseDirectory', allowed: ABSOLUTE_PATH, default: '/var/webjob', about: 'root of the tree' },
  { key: 'ConfigDirectory', allowed: ABSOLUTE_PATH, default: '<Base>/config', about: 'settings by client and command' },
  { key: 'DynamicDirectory', allowed: ABSOLUTE_PATH, default: '<Base>/dynamic', about: 'files made while serving' },
  { key: 'IncomingDirectory', allowed: ABSOLUTE_PATH, default: '<Base>/incoming', about: 'uploads' },
  { key: 'LogfilesDirectory', allowed: ABSOLUTE_PATH, default: '<Base>/logfiles', about: 'nph-webjob.log' },
  { key: 'ProfilesDirectory', allowed: ABSOLUTE_PATH, default: '<Base>/profiles', about: 'what clients may get' },
  { key: 'SpoolDirectory', allowed: ABSOLUTE_PATH, default: '<Base>/spool', about: 'work handed to other programs' },
  { key: 'CapContentLength', allowed: YES_NO, default: 'N', about: 'refuse requests over MaxContentLength with 455' },
  { key: 'MaxContentLength', allowed: '[0-9]{1,15}', default: '100000000', about: 'bytes a request may carry' },
  { key: 'EnableGetService', allowed: YES_NO, default: 'Y', about: 'serve commands; 553 when N' },
  { key: 'EnablePutService', allowed: YES_NO, default: 'Y', about: 'take uploads; 553 when N' },
  { key: 'EnableJobIds', allowed: YES_NO, default: 'Y', about: 'issue a Job-Id with every GET' },
  { key: 'EnableLogging', allowed: YES_NO, default: 'Y', about: 'one line a request in nph-webjob.log' },
  {
    key: 'FolderList',
    allowed: `(?:${FOLDER}(?::${FOLDER})*)?`,
    default: 'common',
    about: "folders under profiles, separated by `:`, searched after the client's own",
  },
  {
    key: 'OverwriteExistingFiles',
    allowed: YES_NO,
    default: 'N',
    about: 'replace an upload of the same name; 451 when N',
  },
  {
    key: 'PutNameFormat',
    allowed: NAME_FORMAT_PATTERN,
    default: '%cid_%Y%m%d%H%M%S_%pid_%cmd',
    about: 'name of an upload below IncomingDirectory; `/` makes folders',
  },
  {
    key: 'RequireMatch',
    allowed: YES_NO,
    default: 'Y',
    about: 'the user must be the client id (with RequireUser); else 453',
  },
  { key: 'RequireUser', allowed: YES_NO, default: 'Y', about: 'httpd must have authenticated a user; else 452' },
  {
    key: 'ServerId',
    allowed: NAME_PATTERNS.serverId,
    default: 'server_1',
    about: 'first part of a job id; must differ on every server that shares a locker',
  },
  { key: 'UseGMT', allowed: YES_NO, default: 'N', about: 'write times in GMT, not in local time' },
] as const;

export type ControlKey = (typeof CONTROLS)[number]['key'];

export interface ServerSettings {
  configDirectory: string;
  dynamicDirectory: string;
  incomingDirectory: string;
  logfilesDirectory: string;
  profilesDirectory: string;
  spoolDirectory: string;
  /** Largest Content-Length taken, in bytes; undefined for no cap. */
  maxContentBytes: number | undefined;
  enableGetService: boolean;
  enablePutService: boolean;
  enableJobIds: boolean;
  enableLogging: boolean;
  folders: string[];
  overwriteExistingFiles: boolean;
  putNameFormat: string;
  requireMatch: boolean;
  requireUser: boolean;
  serverId: string;
  useGmt: boolean;
}

/** Where the original looked, in order, when WEBJOB_PROPERTIES_FILE does not say. */
export const DEFAULT_FILES = ['/usr/local/apache/etc/nph-webjob.cfg', '/var/webjob/config/nph-webjob/nph-webjob.cfg'];

/**
 * Reads the settings a request runs under. Never throws: every problem is named in `problems` and its control stands at its
 * default, so that the refusal can still be logged where the rest of the file says.
 */
export function readSettings(
  propertiesFile: string | undefined,
  defaultFiles = DEFAULT_FILES,
): { settings: ServerSettings; problems: string[] } {
  const problems: string[] = [];
  const text = readFirstFile(propertiesFile === undefined ? defaultFiles : [propertiesFile], problems);
  return { settings: parseSettings(text, problems), problems };
}

/** Parses the text of nph-webjob.cfg: unknown keys and stray lines are ignored, the last of a repeated key wins. */
export function parseSettings(text: string, problems: string[]): ServerSettings {
  const given = new Map(parseKeyValue(text).entries.map((entry) => [entry.key.toLowerCase(), entry]));
  const value = (key: ControlKey): string => {
    const control = CONTROLS.find((candidate) => candidate.key === key) ?? CONTROLS[0];
    const entry = given.get(key.toLowerCase());
    if (entry === undefined) return control.default;
    if (new RegExp(`^(?:${control.allowed})$`).test(entry.value)) return entry.value;
    problems.push(`${key} in line ${entry.line} has a value that is not allowed`);
    return control.default;
  };
  const flag = (key: ControlKey): boolean => value(key).toUpperCase() === 'Y';
  const base = value('BaseDirectory').replace(/\/+$/, '');
  // Only a default begins so; a function, because a `$` in a path is no replacement pattern.
  const directory = (key: ControlKey): string => value(key).replace(/^<Base>/, () => base);
  // Read apart from CapContentLength: a bad value is a problem also while there is no cap.
  const maxContentBytes = Number(value('MaxContentLength'));
  return {
    configDirectory: directory('ConfigDirectory'),
    dynamicDirectory: directory('DynamicDirectory'),
    incomingDirectory: directory('IncomingDirectory'),
    logfilesDirectory: directory('LogfilesDirectory'),
    profilesDirectory: directory('ProfilesDirectory'),
    spoolDirectory: directory('SpoolDirectory'),
    maxContentBytes: flag('CapContentLength') ? maxContentBytes : undefined,
    enableGetService: flag('EnableGetService'),
    enablePutService: flag('EnablePutService'),
    enableJobIds: flag('EnableJobIds'),
    enableLogging: flag('EnableLogging'),
    folders: value('FolderList').split(':').filter(Boolean),
    overwriteExistingFiles: flag('OverwriteExistingFiles'),
    putNameFormat: value('PutNameFormat'),
    requireMatch: flag('RequireMatch'),
    requireUser: flag('RequireUser'),
    serverId: value('ServerId'),
    useGmt: flag('UseGMT'),
  };
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
