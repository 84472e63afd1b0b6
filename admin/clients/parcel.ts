// What a new client is given, in one folder: webjob.conf, ready to use by this client and by the C clients before it, and what it names.
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseKeyValue } from 'webjob-conf';
import { Failure } from '../failure.ts';
import { createFile, errorCode, replaceFile } from '../files.ts';
import type { Issued } from './certificates.ts';
import type { ServerFacts } from './desk.ts';

export interface Parcel {
  client: string;
  /** On this machine. */
  folder: string;
  /** On the client's, where webjob.conf looks for its files. */
  installFolder: string;
  server: ServerFacts;
  password: string | undefined;
  issued: Issued | undefined;
}

/** Of the client's files, by what they hold. */
const names = (client: string) => {
  return { conf: 'webjob.conf', key: `${client}.key`, request: `${client}.csr`, certificate: `${client}.crt` };
};
const BUNDLE = 'webjob-server.crt';

/** Throws Failure `failed` when one of the files is there: another client's, or an earlier one's. */
export function checkParcelFolder(folder: string, client: string): void {
  const taken = Object.values(names(client)).find((name) => existsSync(join(folder, name)));
  if (taken === undefined) return;
  throw new Failure('failed', `${join(folder, taken)} is there already`, 'remove it, or choose another folder: --out');
}

/** Writes it all, webjob.conf last; returns its path. Throws Failure `failed`. */
export function writeParcel(parcel: Parcel): string {
  const { client, folder, issued, server } = parcel;
  const conf = join(resolve(folder), names(client).conf);
  const text = formatConf(parcel);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    if (server.bundle !== undefined) replaceFile(join(folder, BUNDLE), server.bundle, { mode: 0o644 });
    if (issued) writeCertificate(folder, client, issued);
    createFile(conf, text, { mode: 0o600 });
  } catch (error) {
    throw new Failure('failed', `${conf} and its files cannot be written: ${errorCode(error)}`);
  }
  return conf;
}

/** Of the key only a new one is written, and never over another. Throws Failure `failed`. */
export function writeCertificate(folder: string, client: string, issued: Issued): string {
  const own = names(client);
  const certificate = join(resolve(folder), own.certificate);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    if (issued.key !== undefined) createFile(join(folder, own.key), issued.key, { mode: 0o600 });
    replaceFile(join(folder, own.request), issued.request, { mode: 0o644 });
    replaceFile(certificate, issued.certificate, { mode: 0o644 });
  } catch (error) {
    throw new Failure('failed', `${certificate} and its key cannot be written: ${errorCode(error)}`, 'choose --out');
  }
  return certificate;
}

function formatConf({ client, installFolder, server, password, issued }: Parcel): string {
  const own = names(client);
  const lines: [key: string, value: string][] = [
    ['ClientId', client],
    ['URLGetURL', server.url],
    ['URLPutURL', server.url],
    ...(password === undefined
      ? ([['URLAuthType', 'none']] as const)
      : ([
          ['URLAuthType', 'basic'],
          ['URLUsername', client],
          ['URLPassword', password],
        ] as const)
    ).map(([key, value]): [string, string] => [key, value]),
    ...formatTls(server, installFolder),
    ...(issued
      ? ([
          ['SSLUseCertificate', 'Y'],
          ['SSLPublicCertFile', join(installFolder, own.certificate)],
          ['SSLPrivateKeyFile', join(installFolder, own.key)],
        ] as [string, string][])
      : []),
    ['RunType', 'snapshot'],
    ['OverwriteExecutable', 'Y'],
    ['UnlinkExecutable', 'Y'],
    ['UnlinkOutput', 'Y'],
  ];
  const bad = lines.find(([, value]) => /[#\x00-\x1f\x7f]/.test(value));
  if (bad)
    throw new Failure('usage', `${bad[0]} would hold a number sign or a control character`, 'choose another folder');
  const text = lines.map(([key, value]) => `${key}=${value}\n`).join('');
  return `# webjob.conf of ${client}: webjob --execute --file webjob.conf program\n${text}`;
}

/** Checked by what C clients know too: the chain, its length, and the CN. */
function formatTls({ url, bundle, commonName }: ServerFacts, installFolder: string): [string, string][] {
  if (!url.startsWith('https:')) return [];
  return [
    ['SSLVerifyPeerCert', 'Y'],
    ...(bundle === undefined ? [] : [['SSLBundledCAsFile', join(installFolder, BUNDLE)] as [string, string]]),
    ['SSLMaxChainLength', bundle === undefined ? '3' : '1'],
    ['SSLExpectedPeerCN', commonName ?? ''],
  ];
}

/** Puts another password into a client's webjob.conf; undefined when there is none in the folder. Throws Failure `failed`. */
export function findPasswordChange(folder: string, client: string, password: string): (() => string) | undefined {
  const conf = join(resolve(folder), names(client).conf);
  if (!existsSync(conf)) return undefined;
  const text = readFileSync(conf, 'utf8');
  const { entries } = parseKeyValue(text);
  const find = (key: string) => entries.find((entry) => entry.key.toLowerCase() === key);
  const line = find('urlpassword')?.line;
  if (find('clientid')?.value !== client || line === undefined)
    throw new Failure('failed', `${conf} is not a webjob.conf of ${client} with a password`, 'choose --out');
  const changed = text.split('\n').with(line - 1, `URLPassword=${password}`);
  return () => {
    replaceFile(conf, changed.join('\n'), { mode: 0o600 });
    return conf;
  };
}
