// webjob.conf: THE table of the client's controls, and ClientSettings read from one or more files (docs/protocol.md, section 7).
// Nothing is ignored: a control this client does not obey is an error, for it may be one that guards the user.
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { resolve } from 'node:path';
import { type Entry, parseKeyValue } from 'webjob-conf';
import { NAME_PATTERNS, type RunType } from 'webjob-protocol';
import { Failure } from './failure.ts';

const YES_NO = '[YNyn]';
const SECONDS = '[0-9]{1,6}';
const TEXT = '[^\\x00-\\x1f\\x7f]*';
const URL_PATTERN = 'https?://[^\\x00-\\x20\\x7f?]+';

/** Every control: its name, the values it takes (a pattern, anchored at both ends), its default and what it means. */
export const CONTROLS = [
  {
    key: 'ClientId',
    allowed: NAME_PATTERNS.clientId,
    default: '',
    about: 'name of this client at the server; required',
  },
  { key: 'GetTimeLimit', allowed: SECONDS, default: '0', about: 'seconds the GET may take; 0 for no limit' },
  { key: 'HashType', allowed: 'MD5|SHA1|SHA256', default: 'MD5', about: 'digest of stdout and stderr in the record' },
  {
    key: 'OverwriteExecutable',
    allowed: YES_NO,
    default: 'Y',
    about: 'replace a file that has the name of the program',
  },
  { key: 'PutTimeLimit', allowed: SECONDS, default: '0', about: 'seconds the PUT may take; 0 for no limit' },
  { key: 'RunTimeLimit', allowed: SECONDS, default: '0', about: 'seconds the program may run; 0 for no limit' },
  {
    key: 'RunType',
    allowed: 'snapshot|linktest',
    default: 'snapshot',
    about: 'linktest: the server throws the upload away',
  },
  {
    key: 'TempDirectory',
    allowed: TEXT,
    default: '',
    about: "where the program lies and runs; the system's when empty",
  },
  {
    key: 'TimeoutSignal',
    allowed: '[1-9]|[12][0-9]|3[01]',
    default: '9',
    about: 'signal for a program over RunTimeLimit',
  },
  { key: 'UnlinkExecutable', allowed: YES_NO, default: 'Y', about: 'remove the program when it has run' },
  { key: 'UnlinkOutput', allowed: YES_NO, default: 'Y', about: 'remove the output when it has been uploaded' },
  { key: 'URLAuthType', allowed: 'basic|none', default: 'none', about: 'basic: send URLUsername and URLPassword' },
  { key: 'URLDownloadLimit', allowed: '[0-9]{1,15}', default: '0', about: 'most bytes of a program; 0 for no limit' },
  { key: 'URLGetURL', allowed: URL_PATTERN, default: '', about: 'where programs come from; required' },
  { key: 'URLPassword', allowed: TEXT, default: '', about: 'password for basic authentication' },
  { key: 'URLPutURL', allowed: URL_PATTERN, default: '', about: 'where output goes; without it to stdout and stderr' },
  { key: 'URLUsername', allowed: TEXT, default: '', about: 'user for basic authentication' },
] as const;

export type ControlKey = (typeof CONTROLS)[number]['key'];

export interface Target {
  url: URL;
  /** `user:password` for basic authentication. */
  credentials: string | undefined;
}

export interface ClientSettings {
  clientId: string;
  get: Target;
  put: Target | undefined;
  runType: RunType;
  /** Absolute: a bare name would be looked up in PATH and another program of that name run. */
  tempDirectory: string;
  overwriteExecutable: boolean;
  unlinkExecutable: boolean;
  unlinkOutput: boolean;
  /** Limits of the three stages in seconds; 0 for none. */
  getLimitSeconds: number;
  runLimitSeconds: number;
  putLimitSeconds: number;
  timeoutSignal: number;
  hashType: 'MD5' | 'SHA1' | 'SHA256';
  /** Bytes; 0 for none. */
  downloadLimitBytes: number;
}

/** Reads settings from files separated by commas, as one. Throws Failure naming file, line and control. */
export function readSettings(files: string): ClientSettings {
  const given = new Map<string, Entry>();
  for (const file of files.split(',')) {
    for (const entry of readEntries(file)) {
      const key = entry.key.toLowerCase();
      if (given.has(key)) throw fault(file, entry.line, `${entry.key} is given twice`);
      checkEntry(file, entry);
      given.set(key, entry);
    }
  }
  return buildSettings((key) => given.get(key.toLowerCase())?.value ?? findControl(key)?.default ?? '');
}

function readEntries(file: string): Entry[] {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new Failure('settings', `${file} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
  const { entries, strayLines } = parseKeyValue(text);
  if (strayLines[0] !== undefined) throw fault(file, strayLines[0], 'not control=value');
  return entries;
}

function checkEntry(file: string, { key, value, line }: Entry): void {
  const control = findControl(key);
  if (!control) throw fault(file, line, `${key} is not a control that this client obeys`);
  // A value of its own may be empty wherever the default is.
  if (value === '' && control.default === '') return;
  if (!new RegExp(`^(?:${control.allowed})$`).test(value))
    throw fault(file, line, `${control.key} has a value that is not allowed`);
}

function findControl(key: string): (typeof CONTROLS)[number] | undefined {
  return CONTROLS.find((control) => control.key.toLowerCase() === key.toLowerCase());
}

function fault(file: string, line: number, message: string): Failure {
  return new Failure('settings', `${file} line ${line}: ${message}`);
}

function buildSettings(value: (key: ControlKey) => string): ClientSettings {
  const flag = (key: ControlKey): boolean => value(key).toUpperCase() === 'Y';
  for (const key of ['ClientId', 'URLGetURL'] as const) {
    if (value(key) === '')
      throw new Failure('settings', `${key} is required`, `add a line ${key}=... to the file given with --file`);
  }
  const own = value('URLAuthType') === 'basic' ? `${value('URLUsername')}:${value('URLPassword')}` : undefined;
  return {
    clientId: value('ClientId'),
    get: parseTarget('URLGetURL', value('URLGetURL'), own),
    put: value('URLPutURL') === '' ? undefined : parseTarget('URLPutURL', value('URLPutURL'), own),
    runType: value('RunType') === 'linktest' ? 'linktest' : 'snapshot',
    tempDirectory: resolve(value('TempDirectory') || tmpdir()),
    overwriteExecutable: flag('OverwriteExecutable'),
    unlinkExecutable: flag('UnlinkExecutable'),
    unlinkOutput: flag('UnlinkOutput'),
    getLimitSeconds: Number(value('GetTimeLimit')),
    runLimitSeconds: Number(value('RunTimeLimit')),
    putLimitSeconds: Number(value('PutTimeLimit')),
    timeoutSignal: Number(value('TimeoutSignal')),
    hashType: value('HashType') as ClientSettings['hashType'],
    downloadLimitBytes: Number(value('URLDownloadLimit')),
  };
}

/** A user and password in the URL win over the controls, and leave the URL before anybody can print it. */
function parseTarget(key: ControlKey, text: string, ownCredentials: string | undefined): Target {
  if (!URL.canParse(text)) throw new Failure('settings', `${key} is no URL`);
  const url = new URL(text);
  const inUrl = url.username === '' ? undefined : `${decode(key, url.username)}:${decode(key, url.password)}`;
  url.username = '';
  url.password = '';
  return { url, credentials: inUrl ?? ownCredentials };
}

function decode(key: ControlKey, text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Failure('settings', `${key} holds a user or password with a bad %`);
  }
}
