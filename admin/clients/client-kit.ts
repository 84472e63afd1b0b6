// The client kit of a new client, in one directory: webjob.conf, for this client or a C client, and
// the files that it names.
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseKeyValue } from 'webjob-conf';
import { Failure } from '../../cli/failure.ts';
import { createFile, errorCode, removeUnfinished, replaceFile } from '../../cli/files.ts';
import type { Issued } from './certificates.ts';
import type { ServerFacts } from './context.ts';
import { SCHEDULE_FILES } from './schedule.ts';

export interface ClientKit {
  client: string;
  /** The directory on this machine. */
  folder: string;
  /** The content of webjob.conf in bytes. */
  conf: Buffer;
  /** The CA certificates by which the client verifies the server. */
  bundle: string | undefined;
  /** The key that verifies signatures of programs, in PEM. */
  verifyKey: Buffer | undefined;
  /** The file of keys whose signatures on manifests count. */
  trustedKeys: Buffer | undefined;
  /**
   * The key that signs the client's results, in PEM. Undefined for none, and for one that was made
   * by the client and was never on this machine.
   */
  resultKey: string | undefined;
  issued: Issued | undefined;
  /** Files for cron and systemd, by name. */
  schedule?: Readonly<Record<string, string>> | undefined;
}

export interface ConfFacts {
  client: string;
  /**
   * The directory on the client's machine; undefined for files that are found beside webjob.conf,
   * wherever that is.
   */
  installFolder: string | undefined;
  /**
   * Whether the kit is for a C client, which resolves relative paths against the working directory,
   * and refuses settings that it does not know.
   */
  isForC: boolean;
  server: ServerFacts;
  /** The password, one character for each byte. */
  password: string | undefined;
  hasCertificate: boolean;
  hasVerifyKey: boolean;
  /** The value of DsvThreshold; undefined for a client that checks no manifests. */
  threshold: number | undefined;
  hasResultKey: boolean;
}

/** The names of a client's files. */
const names = (client: string) => {
  const [key, request, certificate] = [`${client}.key`, `${client}.csr`, `${client}.crt`];
  return { conf: 'webjob.conf', key, request, certificate, resultKey: `${client}.result.key` };
};
const BUNDLE = 'webjob-server.crt';
/** The name that webjob-sign uses. */
const VERIFY_KEY = 'webjob-sign.pub';
const TRUSTED_KEYS = 'webjob-trusted.keys';

/**
 * Checks that none of the files exists, from another client or an earlier kit. Throws Failure
 * `failed`.
 */
export function checkKitFolder(folder: string, client: string): void {
  const taken = Object.values(names(client)).find((name) => existsSync(join(folder, name)));
  if (taken === undefined) return;
  throw new Failure('failed', `${join(folder, taken)} already exists`, 'remove it, or choose another directory: --out');
}

/** Removes files of a client that a killed run left. */
export function removeKit(folder: string, client: string): void {
  if (!existsSync(folder)) return;
  const own = Object.values(names(client));
  for (const name of [...own, BUNDLE, VERIFY_KEY, TRUSTED_KEYS, ...SCHEDULE_FILES])
    removeUnfinished(join(folder, name));
  for (const name of own) rmSync(join(folder, name), { force: true });
}

/** Writes the kit, webjob.conf last; returns its path. Throws Failure `failed`. */
export function writeKit(kit: ClientKit): string {
  const { client, folder, conf, bundle, verifyKey, trustedKeys, resultKey, issued, schedule = {} } = kit;
  const path = join(resolve(folder), names(client).conf);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    if (bundle !== undefined) replaceFile(join(folder, BUNDLE), bundle, { mode: 0o644 });
    if (verifyKey !== undefined) replaceFile(join(folder, VERIFY_KEY), verifyKey, { mode: 0o644 });
    if (trustedKeys !== undefined) replaceFile(join(folder, TRUSTED_KEYS), trustedKeys, { mode: 0o644 });
    if (issued) writeCertificate(folder, client, issued);
    if (resultKey !== undefined) createFile(join(folder, names(client).resultKey), resultKey, { mode: 0o600 });
    for (const [name, text] of Object.entries(schedule)) replaceFile(join(folder, name), text, { mode: 0o644 });
    createFile(path, conf, { mode: 0o600 });
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure('failed', `${path} and its files cannot be written: ${errorCode(error)}`);
  }
  return path;
}

/**
 * Checks that there is no key yet, because a new one must never overwrite another. Throws Failure
 * `failed`.
 */
export function checkHasNoKey(folder: string, client: string): void {
  const key = join(folder, names(client).key);
  if (existsSync(key))
    throw new Failure('failed', `${key} already exists`, 'remove it, or choose another directory: --out');
}

/**
 * Writes a certificate. A key is written only when it is new, never over another, and last, so that
 * it marks the set as complete. Throws Failure `failed`.
 */
export function writeCertificate(folder: string, client: string, issued: Issued): string {
  const own = names(client);
  const certificate = join(resolve(folder), own.certificate);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    for (const name of Object.values(own)) removeUnfinished(join(folder, name));
    if (issued.request !== undefined) replaceFile(join(folder, own.request), issued.request, { mode: 0o644 });
    replaceFile(certificate, issued.certificate, { mode: 0o644 });
    if (issued.key !== undefined) createFile(join(folder, own.key), issued.key, { mode: 0o600 });
  } catch (error) {
    throw new Failure('failed', `${certificate} and its key cannot be written: ${errorCode(error)}`, 'choose --out');
  }
  return certificate;
}

/** Formats webjob.conf, in bytes. Throws Failure `usage` for a value that it cannot represent. */
export function formatConf(facts: ConfFacts): Buffer {
  const { client, installFolder, isForC, server, password, hasCertificate, hasVerifyKey, threshold, hasResultKey } =
    facts;
  const place = (name: string): string => (installFolder === undefined ? name : join(installFolder, name));
  const own = names(client);
  const lines: [key: string, value: string][] = [
    ['ClientId', client],
    ['URLGetURL', server.url],
    ['URLPutURL', server.url],
    ...formatPassword(client, password),
    ...formatTls(server, place(BUNDLE)),
    ...(hasCertificate ? formatCertificate(place(own.certificate), place(own.key)) : []),
    ...(hasVerifyKey ? formatVerifyKey(place(VERIFY_KEY)) : []),
    ...(threshold === undefined ? [] : formatManifests(place(TRUSTED_KEYS), threshold, place('serials'))),
    ...(hasResultKey ? [['ResultKeyFile', place(own.resultKey)] as [string, string]] : []),
    ['RunType', 'snapshot'],
    ['OverwriteExecutable', 'Y'],
    ['UnlinkExecutable', 'Y'],
    ['UnlinkOutput', 'Y'],
  ];
  const limits: typeof lines = [
    ...LIMITS,
    ...(isForC
      ? []
      : ([
          ['SpoolDirectory', place('spool')],
          ['SpoolLimit', '1073741824'],
        ] as typeof lines)),
  ];
  const bad = [...lines, ...limits].find(([, value]) => /[#\x00-\x1f\x7f]/.test(value));
  if (bad)
    throw new Failure(
      'usage',
      `${bad[0]} would contain a number sign or a control character`,
      'choose another directory',
    );
  const head = `# webjob.conf of ${client}: webjob --execute --file webjob.conf program\n`;
  return Buffer.concat([
    Buffer.from(head),
    ...lines.map(([key, value]) => Buffer.from(`${key}=${value}\n`, key === 'URLPassword' ? 'latin1' : 'utf8')),
    Buffer.from(isForC ? '' : BAD_NETWORKS),
    Buffer.from(
      `\n# Seconds for each stage, and bytes of the largest program${isForC ? '' : '. Jobs that cannot be uploaded wait in the spool'}.\n`,
    ),
    Buffer.from(limits.map(([key, value]) => `${key}=${value}\n`).join('')),
  ]);
}

/**
 * A server or a program that hangs must not block a client forever. C clients know these settings
 * too.
 */
const LIMITS: [key: string, value: string][] = [
  ['GetTimeLimit', '600'],
  ['RunTimeLimit', '86400'],
  ['PutTimeLimit', '3600'],
  ['URLDownloadLimit', '268435456'],
];

/**
 * Commented out at first: a first test by hand would otherwise take minutes to report a wrong URL.
 */
const BAD_NETWORKS = `
# On a bad network remove the # before these.
#RetryLimit=5
#RetryDelay=10
`;

function formatPassword(client: string, password: string | undefined): [string, string][] {
  if (password === undefined) return [['URLAuthType', 'none']];
  return [
    ['URLAuthType', 'basic'],
    ['URLUsername', client],
    ['URLPassword', password],
  ];
}

function formatCertificate(certificate: string, key: string): [string, string][] {
  return [
    ['SSLUseCertificate', 'Y'],
    ['SSLPublicCertFile', certificate],
    ['SSLPrivateKeyFile', key],
  ];
}

function formatVerifyKey(path: string): [string, string][] {
  return [
    ['DsvVerifySignature', 'Y'],
    ['DsvPublicKeyFile', path],
  ];
}

function formatManifests(keys: string, threshold: number, serials: string): [string, string][] {
  return [
    ['DsvVerifyManifest', 'Y'],
    ['DsvTrustedKeysFile', keys],
    ['DsvThreshold', String(threshold)],
    ['DsvSerialFile', serials],
  ];
}

/** TLS settings that C clients know too: the chain, its length, and the CN. */
function formatTls({ url, bundle, commonName }: ServerFacts, bundlePath: string): [string, string][] {
  if (!url.startsWith('https:')) return [];
  return [
    ['SSLVerifyPeerCert', 'Y'],
    ...(bundle === undefined ? [] : [['SSLBundledCAsFile', bundlePath] as [string, string]]),
    ['SSLMaxChainLength', bundle === undefined ? '3' : '1'],
    ['SSLExpectedPeerCN', commonName ?? ''],
  ];
}

/**
 * Writes a result key for a client that already has its kit, never over another. Returns its path.
 * Throws Failure `failed`.
 */
export function writeResultKey(folder: string, client: string, pem: string): string {
  const path = join(resolve(folder), names(client).resultKey);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    removeUnfinished(path);
    createFile(path, pem, { mode: 0o600 });
  } catch (error) {
    const hint = errorCode(error) === 'EEXIST' ? 'a key is never overwritten: choose --out' : undefined;
    throw new Failure('failed', `${path} cannot be written: ${errorCode(error)}`, hint);
  }
  return path;
}

/**
 * Prepares a new password in a client's webjob.conf; the returned function writes it. Undefined
 * when the directory has no webjob.conf. Throws Failure `failed`.
 */
export function findPasswordChange(folder: string, client: string, password: string): (() => string) | undefined {
  const conf = join(resolve(folder), names(client).conf);
  if (!existsSync(conf)) return undefined;
  const text = readFileSync(conf, 'latin1');
  const { entries } = parseKeyValue(text, 'bytes');
  const find = (key: string) => entries.find((entry) => entry.key.toLowerCase() === key);
  const line = find('urlpassword')?.line;
  if (find('clientid')?.value !== client || line === undefined)
    throw new Failure('failed', `${conf} is not a webjob.conf of ${client} with a password`, 'choose --out');
  const changed = text.split('\n').with(line - 1, `URLPassword=${password}`);
  return () => {
    removeUnfinished(conf);
    replaceFile(conf, Buffer.from(changed.join('\n'), 'latin1'), { mode: 0o600 });
    return conf;
  };
}
