// THE table of webjob.conf: every setting with its allowed values, its default and its type in
// ClientSettings. conf/webjob.conf explains each setting; that file, the man page and the tests are
// checked against this table (docs/protocol.md, section 7).
import { NAME_PATTERNS } from 'webjob-protocol';

export interface Control<Key extends string = string, Type = unknown> {
  key: Key;
  default: string;
  /** A pattern, anchored at both ends. An empty value is allowed wherever the default is empty. */
  allowed: string;
  parse: (text: string) => Type;
  /** Whether a relative value is resolved against the directory of the file that contains it. */
  isPath?: true;
}

const TEXT = '[^\\x00-\\x1f\\x7f]*';
const BYTES = '[0-9]{1,15}';
const SECONDS = '[0-9]{1,6}';
const EXIT_STATUS = '[01]?[0-9]{1,2}|2[0-4][0-9]|25[0-5]';
const PORT = '[1-9][0-9]{0,3}|[1-5][0-9]{4}|6(?:[0-4][0-9]{3}|5(?:[0-4][0-9]{2}|5(?:[0-2][0-9]|3[0-5])))';
const URL_PATTERN = '[Hh][Tt][Tt][Pp][Ss]?://[^\\x00-\\x20\\x7f?]+';

const text = <Key extends string>(key: Key, value: string, allowed = TEXT): Control<Key, string> => {
  return { key, default: value, allowed, parse: String };
};
const path = <Key extends string>(key: Key): Control<Key, string> => ({ ...text(key, ''), isPath: true });
/**
 * A setting whose value is one of these words in any case, as in the original; it is stored in the
 * spelling given here.
 */
const choice = <Key extends string, Word extends string>(key: Key, ...words: readonly [Word, ...Word[]]) => {
  const control: Control<Key, Word> = {
    key,
    default: words[0],
    allowed: words
      .join('|')
      .replaceAll('.', '\\.')
      .replace(/[a-z]/gi, (letter) => `[${letter.toUpperCase()}${letter.toLowerCase()}]`),
    parse: (given) => words.find((word) => word.toLowerCase() === given.toLowerCase()) ?? words[0],
  };
  return control;
};
const flag = <Key extends string>(key: Key, value: 'Y' | 'N'): Control<Key, boolean> => {
  return { key, default: value, allowed: '[YNyn]', parse: (given) => /y/i.test(given) };
};
const number = <Key extends string>(key: Key, value: string, allowed: string): Control<Key, number> => {
  return { key, default: value, allowed, parse: Number };
};

export const CONTROLS = [
  text('ClientId', '', NAME_PATTERNS.clientId),
  path('DsvPublicKeyFile'),
  flag('DsvRequireManifest', 'Y'),
  path('DsvSerialFile'),
  number('DsvThreshold', '1', '[1-9][0-9]{0,2}'),
  path('DsvTrustedKeysFile'),
  flag('DsvVerifyManifest', 'N'),
  flag('DsvVerifySignature', 'N'),
  text('GetHookCommandLine', '', '(?:%(?:%|cmd|file)|[^%\\x00-\\x1f\\x7f])+'),
  flag('GetHookEnable', 'N'),
  number('GetHookStatus', '0', EXIT_STATUS),
  text('GetHookSuffix', '', '\\.[A-Za-z0-9_.-]{1,32}'),
  number('GetHookTimeLimit', '60', SECONDS),
  number('GetTimeLimit', '0', SECONDS),
  choice('HashType', 'MD5', 'SHA1', 'SHA256'),
  path('JournalFile'),
  path('LockFile'),
  flag('OverwriteExecutable', 'Y'),
  number('PutTimeLimit', '0', SECONDS),
  path('ResultKeyFile'),
  number('RetryDelay', '10', SECONDS),
  number('RetryLimit', '0', '[0-9]{1,3}'),
  number('RunTimeLimit', '0', SECONDS),
  choice('RunType', 'snapshot', 'linktest'),
  text('SealTo', '', '[A-Za-z0-9, -]+'),
  number('Splay', '0', SECONDS),
  path('SpoolDirectory'),
  number('SpoolLimit', '1073741824', BYTES),
  path('SSLBundledCAsFile'),
  text('SSLExpectedPeerCN', ''),
  number('SSLMaxChainLength', '1', '[1-9]|10'),
  choice('SSLMinVersion', 'TLSv1.2', 'TLSv1.3', 'TLSv1.1', 'TLSv1'),
  text('SSLPassPhrase', ''),
  path('SSLPassPhraseFile'),
  path('SSLPrivateKeyFile'),
  path('SSLPublicCertFile'),
  flag('SSLUseCertificate', 'N'),
  flag('SSLVerifyHost', 'N'),
  flag('SSLVerifyPeerCert', 'N'),
  // Resolved against the working directory, as in the original: the program that runs there does
  // not belong to a client kit.
  text('TempDirectory', ''),
  number('TimeoutSignal', '9', '[1-9]|[12][0-9]|3[01]'),
  flag('UnlinkExecutable', 'Y'),
  flag('UnlinkOutput', 'Y'),
  flag('UploadOnGetFailure', 'N'),
  choice('URLAuthType', 'none', 'basic'),
  number('URLDownloadLimit', '0', BYTES),
  text('URLGetURL', '', URL_PATTERN),
  text('URLPassword', ''),
  choice('URLProxyAuthType', 'none', 'basic'),
  text('URLProxyHost', '', '[A-Za-z0-9.:_-]+'),
  text('URLProxyPassword', ''),
  number('URLProxyPort', '8080', PORT),
  text('URLProxyUsername', ''),
  text('URLPutURL', '', URL_PATTERN),
  text('URLUsername', ''),
] as const;

type AnyControl = (typeof CONTROLS)[number];
export type ControlKey = AnyControl['key'];

/** Derives a property name: `URLGetURL` becomes `urlGetURL`, `ClientId` becomes `clientId`. */
type PropertyOf<Key> = Key extends `URL${infer Rest}`
  ? `url${Rest}`
  : Key extends `SSL${infer Rest}`
    ? `ssl${Rest}`
    : Key extends string
      ? Uncapitalize<Key>
      : never;

/** One property for each setting. */
export type Controls = {
  [Row in AnyControl as PropertyOf<Row['key']>]: Row extends Control<string, infer Type> ? Type : never;
};

const BY_NAME: ReadonlyMap<string, AnyControl> = new Map(
  CONTROLS.map((control) => [control.key.toLowerCase(), control]),
);

/** Finds a setting by its name in any case. */
export function findControl(key: string): AnyControl | undefined {
  return BY_NAME.get(key.toLowerCase());
}

/** The name of a setting's property in Controls. */
export function propertyOf(key: string): string {
  return key.replace(/^(?:URL|SSL|.)/, (start) => start.toLowerCase());
}
