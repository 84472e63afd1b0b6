// ClientSettings, read from one or more webjob.conf files (docs/protocol.md, section 7). Nothing is
// ignored: an unknown setting is an error, because it may be one that protects the user.
import { readFileSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, resolve } from 'node:path';
import { type Entry, parseKeyValue } from 'webjob-conf';
import { decodeUtf8, percentDecode, percentEncode } from './bytes.ts';
import { Failure, warn } from './failure.ts';
import { warnOfOthers } from './safe-directory.ts';
import { CONTROLS, type ControlKey, type Controls, findControl, propertyOf } from './setting-table.ts';

export interface Target {
  url: URL;
  /** `user:password` for Basic authentication, one character per byte. */
  credentials: string | undefined;
}

export interface ClientSettings extends Controls {
  get: Target;
  put: Target | undefined;
  /** `user:password` for the proxy, one character per byte. */
  proxyCredentials: string | undefined;
}

const IMPORT_DEPTH = 3;
const SECRETS = /^(?:URLPassword|URLProxyPassword|SSLPassPhrase)$/i;
/**
 * Settings whose exact bytes are sent to a server or hashed; all others are file names, commands,
 * or names in ASCII.
 */
const AS_BYTES = /^(?:URL.*|SSLPassPhrase)$/i;
const UTF_16 = /^(?:\xff\xfe|\xfe\xff)/;

/**
 * Reads settings from comma-separated files as if they were one file. Throws a Failure that names
 * the file, line and setting.
 */
export function readSettings(files: string): ClientSettings {
  return checkSettings(readControls(files), ['ClientId', 'URLGetURL']);
}

/**
 * Reads the settings for a mode that contacts no WebJob server, in which no setting is required.
 */
export function readConnection(files: string | undefined): ClientSettings {
  return checkSettings(files === undefined ? new Map() : readControls(files), []);
}

type Given = Map<string, Entry & { file: string }>;

function readControls(files: string): Given {
  const given: Given = new Map();
  for (const file of files.split(',')) readFile(given, file, 0);
  return given;
}

/**
 * Reads a file. Import inserts the settings of the file that it names, relative to the importing
 * file.
 */
function readFile(given: Given, file: string, depth: number): void {
  for (const entry of readEntries(file)) {
    if (entry.key.toLowerCase() === 'import') {
      if (depth === IMPORT_DEPTH) throw fault(file, entry.line, `Import is nested deeper than ${IMPORT_DEPTH} files`);
      if (entry.value === '') throw fault(file, entry.line, 'Import names no file');
      readFile(given, resolve(dirname(file), entry.value), depth + 1);
      continue;
    }
    const key = entry.key.toLowerCase();
    if (given.has(key)) throw fault(file, entry.line, `${entry.key} is given twice`);
    checkEntry(file, entry);
    given.set(key, { ...entry, value: placeBeside(file, entry), file });
  }
}

/**
 * Resolves a path against the directory of the file that contains it, so that a client kit works in
 * any location, whatever cron's working directory is.
 */
function placeBeside(file: string, { key, value }: Entry): string {
  return value !== '' && findControl(key)?.isPath ? resolve(dirname(file), value) : value;
}

function readEntries(file: string): Entry[] {
  let text: string;
  let mode: number;
  try {
    text = readFileSync(file, 'latin1');
    mode = statSync(file).mode;
  } catch (error) {
    throw new Failure('settings', `${file} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
  warnOfOthers(file);
  if (UTF_16.test(text)) throw new Failure('settings', `${file} is UTF-16`, 'save it as UTF-8');
  const { entries, otherLines } = parseKeyValue(text, 'bytes');
  if (otherLines[0] !== undefined) throw fault(file, otherLines[0], 'not Key=value');
  const isSecret = ({ key, value }: Entry): boolean =>
    (SECRETS.test(key) && value !== '') || /^https?:\/\/[^/]*@/i.test(value);
  if ((mode & 0o004) !== 0 && process.platform !== 'win32' && entries.some(isSecret))
    warn(`${file} contains a password, and every user of this machine can read it`);
  return entries.map((entry) => decodeEntry(file, entry));
}

/**
 * Decodes a value. Passwords keep one character per byte; file names and commands must be UTF-8,
 * because Node accepts nothing else.
 */
function decodeEntry(file: string, entry: Entry): Entry {
  if (AS_BYTES.test(entry.key)) return entry;
  const value = decodeUtf8(entry.value);
  if (value === undefined) throw fault(file, entry.line, `${entry.key} must be UTF-8`);
  return { ...entry, value };
}

function checkEntry(file: string, { key, value, line }: Entry): void {
  const control = findControl(key);
  if (!control) throw fault(file, line, `${key} is not a setting of this client`);
  if (value === '' && control.default === '') return;
  if (!new RegExp(`^(?:${control.allowed})$`).test(value))
    throw fault(file, line, `${control.key} has a value that is not allowed`);
}

function fault(file: string, line: number, message: string): Failure {
  return new Failure('settings', `${file} line ${line}: ${message}`);
}

/** The settings that an enabled setting requires. */
const NEEDS: readonly [on: keyof Controls, control: ControlKey, needed: ControlKey][] = [
  ['getHookEnable', 'GetHookEnable', 'GetHookCommandLine'],
  ['getHookEnable', 'GetHookEnable', 'GetHookSuffix'],
  ['dsvVerifyManifest', 'DsvVerifyManifest', 'DsvTrustedKeysFile'],
  ['dsvVerifyManifest', 'DsvVerifyManifest', 'DsvSerialFile'],
  ['dsvVerifySignature', 'DsvVerifySignature', 'DsvPublicKeyFile'],
  ['sslUseCertificate', 'SSLUseCertificate', 'SSLPublicCertFile'],
  ['sslUseCertificate', 'SSLUseCertificate', 'SSLPrivateKeyFile'],
];

function checkSettings(given: Given, required: ControlKey[]): ClientSettings {
  const value = (key: string): string => given.get(key.toLowerCase())?.value || (findControl(key)?.default ?? '');
  for (const key of required) {
    if (value(key) === '')
      throw new Failure('settings', `${key} is required`, `add a line ${key}=... to the file given with --file`);
  }
  const pairs = CONTROLS.map(({ key, parse }) => [propertyOf(key), parse(value(key))]);
  const controls = Object.fromEntries(pairs) as Controls;
  for (const [on, key, needed] of NEEDS) {
    if (controls[on] && value(needed) === '')
      throw new Failure('settings', `${place(given, key)}=Y requires ${needed}`, `add a line ${needed}=...`);
  }
  if (given.has('sealto') && controls.sealTo === '')
    throw new Failure('settings', `${place(given, 'SealTo')} names no recipient`, 'remove the line to seal nothing');
  if (controls.sealTo !== '' && controls.resultKeyFile === '')
    throw new Failure('settings', `${place(given, 'SealTo')} requires ResultKeyFile`, 'add a line ResultKeyFile=...');
  if (controls.sslPassPhrase !== '' && controls.sslPassPhraseFile !== '')
    throw new Failure('settings', `${place(given, 'SSLPassPhraseFile')} and SSLPassPhrase cannot both be set`);
  if (controls.dsvVerifySignature) warnOfOthers(controls.dsvPublicKeyFile);
  if (controls.dsvVerifyManifest)
    for (const file of [controls.dsvTrustedKeysFile, controls.dsvSerialFile]) warnOfOthers(file);
  if (controls.sslBundledCAsFile !== '') warnOfOthers(controls.sslBundledCAsFile);
  const own = credentialsOf(given, controls.urlAuthType, 'URLUsername', controls.urlPassword);
  const target = (key: ControlKey, bytes: string): Target => parseTarget(place(given, key), percentEncode(bytes), own);
  return {
    ...controls,
    // Must be absolute: a bare name would be looked up in PATH, and another program with that name
    // could run.
    tempDirectory: resolve(controls.tempDirectory || tmpdir()),
    get: target('URLGetURL', controls.urlGetURL || 'http://localhost/'),
    put: controls.urlPutURL === '' ? undefined : target('URLPutURL', controls.urlPutURL),
    proxyCredentials: credentialsOf(given, controls.urlProxyAuthType, 'URLProxyUsername', controls.urlProxyPassword),
  };
}

/** The file and line that contain a setting. */
function place(given: Given, key: ControlKey): string {
  const entry = given.get(key.toLowerCase());
  return entry ? `${entry.file} line ${entry.line}: ${key}` : key;
}

/** Returns `user:password` when Basic authentication is configured, otherwise undefined. */
function credentialsOf(given: Given, type: string, key: ControlKey, password: string): string | undefined {
  if (type !== 'basic') return undefined;
  const user = given.get(key.toLowerCase())?.value ?? '';
  if (user.includes(':'))
    throw new Failure('settings', `${place(given, key)} contains a colon, which Basic authentication does not allow`);
  return `${user}:${password}`;
}

/**
 * Parses a URL. A user and password in the URL override the settings, and are removed before
 * anything can print the URL. Throws Failure.
 */
export function parseTarget(name: string, text: string, ownCredentials: string | undefined): Target {
  if (!URL.canParse(text)) throw new Failure('settings', `${name} is not a URL`);
  const url = new URL(text);
  const inUrl = url.username === '' ? undefined : decodeCredentials(name, url);
  url.username = '';
  url.password = '';
  return { url, credentials: inUrl ?? ownCredentials };
}

function decodeCredentials(name: string, { username, password }: URL): string {
  const [user, secret] = [percentDecode(username), percentDecode(password)];
  if (user === undefined || secret === undefined)
    throw new Failure('settings', `${name} has a user or password with an invalid %`);
  return `${user}:${secret}`;
}
