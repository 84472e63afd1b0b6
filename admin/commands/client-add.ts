// webjobctl client add: adds a user or a certificate, makes the profile, and writes the client kit.
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { makeFolder } from 'webjob-locker/durable';
import { Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';
import { printJson, printLine, say, warn } from '../../cli/output.ts';
import { formatVerifierKey } from '../../notes/ed25519.ts';
import { weightOf } from '../../notes/trust.ts';
import { readPublicKey } from '../../sign/keys.ts';
import { readTrustedKeys } from '../../sign/manifests.ts';
import {
  findLatest,
  type Issued,
  issueCertificate,
  keepRequest,
  listCertificates,
  readSigned,
  revokeCertificates,
} from '../clients/certificates.ts';
import { checkKitFolder, formatConf, removeKit, writeKit } from '../clients/client-kit.ts';
import { readNote, removeNote, withClient, writeNote } from '../clients/client-lock.ts';
import {
  type Context,
  type ContextOptions,
  findServer,
  openContext,
  parseClientId,
  parseDays,
  readPassword,
  userFileOption,
} from '../clients/context.ts';
import {
  addResultKey,
  endResultKeys,
  type MadeKey,
  makeResultKey,
  readPublicResultKey,
} from '../clients/result-keys.ts';
import { formatSchedule, parseSchedule } from '../clients/schedule.ts';
import { checkPassword, readUserFile, setUser } from '../clients/userfile.ts';

interface Options extends ContextOptions {
  passwordFile?: string;
  generate?: true;
  cert?: true;
  csr?: string;
  signed?: string;
  days: number;
  url?: string;
  ca?: string;
  verifyKey?: string;
  trustedKeys?: string;
  threshold?: number;
  out?: string;
  installDir?: string;
  cClient?: true;
  /** A file with the client's public key; false with --no-result-key. */
  resultKey?: string | false;
  /** Seconds. */
  schedule?: number;
}

const EXPLANATION = `
Makes profiles/CLIENT/commands, gives the client a password, a certificate or both, and writes the client kit into the
directory CLIENT: webjob.conf and the files that it names. A generated password is stored nowhere else. Copy the whole
directory to the client; webjob can then run from any working directory:

  webjob --execute --file /etc/webjob/webjob.conf host.sh

Jobs that cannot be uploaded wait in the directory spool beside webjob.conf. With --c-client the file suits C clients:
no spool, and absolute paths. With --verify-key the client runs only programs that webjob-sign has signed, with
--trusted-keys only programs with a manifest signed by keys in this file (webjobctl sign trust).

A client, unless it is a C client, signs its results with CLIENT.result.key; the site keeps the public key. With
--result-key the client has made the key itself, and the server never sees the private key.

With --schedule the kit has a line for cron and a timer for systemd; install either, and the client fetches its batch.
From then on everything is decided on the server (webjobctl assign).

A certificate is made by the site's own CA, in webjob-ca beside nph-webjob.cfg. With --csr the key stays on the client.
With --signed the CA is elsewhere (webjobctl ca).

Examples:
  webjobctl client add client1 --generate
  webjobctl client add client2 --password-file - < password
  webjobctl client add client3 --cert --days 365 --url https://webjob.example.com

Exit codes:
  0  added
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the client already exists, or something could not be made`;

export function addCommand(): Command {
  return new Command('add')
    .description('add a client and write its client kit')
    .argument('<CLIENT>', 'the client id', parseClientId)
    .option('--password-file <FILE>', "the password is this file's first line; - for stdin")
    .option('--generate', 'make a password, which is stored only in webjob.conf')
    .option('--cert', 'make a key and a certificate')
    .option('--csr <FILE>', 'make a certificate for this request; the key stays on the client')
    .option('--signed <FILE>', 'use this certificate, signed where the CA is kept')
    .option('--days <DAYS>', 'days that the certificate is valid', parseDays, 730)
    .option(
      '--url <URL>',
      'URL of the server, with or without the path of the script (default: the name in its certificate, or of this machine)',
    )
    .option('--ca <FILE>', "the CA that the client trusts for the server's certificate (PEM)")
    .option('--verify-key <FILE>', 'run only programs that this public key verifies (webjob-sign)')
    .option('--trusted-keys <FILE>', 'run only programs whose manifest is signed by these keys (webjobctl sign trust)')
    .option('--threshold <NUMBER>', 'the weight of signatures that a manifest needs (default: 1)', parseThreshold)
    .option('--out <DIRECTORY>', 'where to write the client kit (default: CLIENT)')
    .option('--install-dir <DIRECTORY>', 'write absolute paths below this directory of the client')
    .option('--c-client', 'write a webjob.conf for C clients')
    .option('--result-key <FILE>', 'the public key of the results; the private key stays on the client')
    .option('--no-result-key', 'do not sign results')
    .option(
      '--schedule <DURATION>',
      'add files for cron and systemd that fetch the batch this often, as in 10m',
      parseSchedule,
    )
    .addOption(userFileOption())
    .addHelpText('after', EXPLANATION)
    .action((name: string, options: Options, command: Command) => add(openContext(command), name, options));
}

function add(context: Context, client: string, options: Options): void {
  const password = choosePassword(options);
  const signed = options.signed === undefined ? undefined : readSigned(context.etcDirectory, client, options.signed);
  const wantsCertificate = options.cert === true || options.csr !== undefined || signed !== undefined;
  checkProofs(options, password !== undefined || wantsCertificate);
  const server = findServer(context, options.url, options.ca);
  const folder = resolve(options.out ?? client);
  const isForC = options.cClient === true;
  const installFolder = options.installDir ?? (isForC ? folder : undefined);
  const verifyKey = options.verifyKey === undefined ? undefined : readVerifyKey(options.verifyKey);
  const trusted = readTrusted(options);
  const facts = { client, installFolder, isForC, server, password, hasCertificate: wantsCertificate };
  const resultKey = chooseResultKey(options);
  const has = { hasVerifyKey: verifyKey !== undefined, hasResultKey: resultKey !== undefined };
  const conf = formatConf({ ...facts, ...has, threshold: trusted?.threshold });
  const schedule = chooseSchedule(context, client, options, installFolder);
  const path = withClient(context, client, () => {
    beginAdd(context, client, folder);
    let issued: Issued | undefined;
    try {
      makeProfile(context, client);
      const source = options.csr === undefined ? 'new key' : { requestFile: options.csr };
      if (signed) issued = { certificate: signed, request: undefined, key: undefined };
      else if (wantsCertificate) issued = issueCertificate(context.etcDirectory, client, options.days, source);
      const keys = { verifyKey, trustedKeys: trusted?.keys, resultKey: resultKey?.pem };
      const written = writeKit({ client, folder, conf, bundle: server.bundle, ...keys, issued, schedule });
      if (resultKey) addResultKey(context, client, resultKey.publicKey);
      if (password !== undefined) setUser(context.userFile, client, password);
      if (issued && !signed) keepRequest(context.etcDirectory, client, issued);
      removeNote(context, client);
      return written;
    } catch (error) {
      removeKit(folder, client);
      endResultKeys(context, client);
      // When the CA has issued a certificate, the note stays for the next add.
      if (!issued) removeNote(context, client);
      throw error;
    }
  });
  warnOfGaps(context, { password: password !== undefined, certificate: wantsCertificate }, server.bundle === undefined);
  if (!context.isJson) {
    printLine(path);
    if (schedule) say('as root on the client: install -m 644 webjob.cron /etc/cron.d/webjob-batch');
    return;
  }
  const certificate = wantsCertificate && !signed && findLatest(listCertificates(context.etcDirectory), client);
  printJson({
    client,
    conf: path,
    url: server.url,
    profile: profileOf(context, client),
    password: password !== undefined,
    certificate: certificate ? { serial: certificate.serial, until: certificate.until.toISOString() } : null,
    resultKey: resultKey ? formatVerifierKey(client, resultKey.publicKey) : null,
    schedule: options.schedule ?? null,
  });
}

/** Checks that the options for credentials agree. Throws Failure `usage`. */
function checkProofs({ signed, cert, csr }: Options, hasProof: boolean): void {
  if (signed !== undefined && (cert || csr !== undefined))
    throw new Failure('usage', '--signed cannot be combined with --cert and --csr');
  if (!hasProof)
    throw new Failure(
      'usage',
      'choose how the client authenticates: --generate, --password-file, --cert, --csr or --signed',
    );
}

/**
 * The files by which cron or systemd has the client fetch its batch. Throws Failure `settings` when
 * the server has no BatchCommand.
 */
function chooseSchedule(
  { settings: { batchCommand } }: Context,
  client: string,
  { schedule: seconds, cClient }: Options,
  installFolder = '/etc/webjob',
): Record<string, string> | undefined {
  if (seconds === undefined) return undefined;
  if (batchCommand === '')
    throw new Failure(
      'settings',
      'BatchCommand is not set, so there are no batches',
      'BatchCommand=batch in nph-webjob.cfg',
    );
  const conf = join(installFolder, 'webjob.conf');
  return formatSchedule({ client, seconds, conf, batchCommand, isForC: cClient === true });
}

/**
 * The key with which the client signs its results; undefined for a client that does not. Throws
 * Failure.
 */
function chooseResultKey({ resultKey, cClient }: Options): MadeKey | undefined {
  if (typeof resultKey === 'string' && cClient)
    throw new Failure('usage', 'C clients sign no results: --result-key cannot be combined with --c-client');
  if (typeof resultKey === 'string') return readPublicResultKey(resultKey);
  return resultKey === false || cClient ? undefined : makeResultKey();
}

/**
 * Reads the public key; the private one would let the client's machine sign programs for all.
 * Throws Failure `failed`.
 */
function readVerifyKey(path: string): Buffer {
  const key = readPublicKey(path);
  return Buffer.from(key.export({ type: 'spki', format: 'pem' }));
}

/**
 * The trusted keys for the client. Throws Failure `usage`, and `failed` for keys that no client
 * would accept.
 */
function readTrusted({ trustedKeys: path, threshold: given, cClient }: Options) {
  const threshold = given ?? 1;
  if (path === undefined) {
    if (given !== undefined) throw new Failure('usage', '--threshold requires --trusted-keys');
    return undefined;
  }
  if (cClient)
    throw new Failure('usage', 'C clients check no manifests: --trusted-keys cannot be combined with --c-client');
  const weight = weightOf(readTrustedKeys(path));
  if (weight < threshold)
    throw new Failure(
      'failed',
      `the keys in ${path} have a total weight of ${weight}, and --threshold is ${threshold}`,
    );
  return { keys: readFileSync(path), threshold };
}

function parseThreshold(text: string): number {
  if (!/^[1-9][0-9]{0,2}$/.test(text)) throw new InvalidArgumentError('a threshold is 1 to 999.');
  return Number(text);
}

/**
 * Notes that an add has begun. The unfinished add of a killed run is undone first, because nobody
 * was told of it. Throws Failure `failed`.
 */
function beginAdd(context: Context, client: string, folder: string): void {
  const begun = readNote(context, client);
  if (begun === undefined) checkIsNew(context, client);
  if (begun !== folder) checkKitFolder(folder, client);
  else removeKit(folder, client);
  writeNote(context, client, folder);
  // Keys of a removed client of the same name have ended.
  endResultKeys(context, client);
  if (begun === undefined) return;
  const valid = listCertificates(context.etcDirectory).filter((one) => one.client === client && one.state === 'valid');
  if (valid.length > 0)
    revokeCertificates(
      context.etcDirectory,
      valid.map(({ serial }) => serial),
    );
}

/** The requested password; undefined for none. Throws Failure. */
export function choosePassword({
  passwordFile,
  generate,
}: Pick<Options, 'passwordFile' | 'generate'>): string | undefined {
  if (passwordFile !== undefined && generate) throw new Failure('usage', 'use one of --password-file and --generate');
  if (generate) return randomBytes(24).toString('base64url');
  if (passwordFile === undefined) return undefined;
  const password = readPassword(passwordFile);
  checkPassword(password);
  return password;
}

function checkIsNew(context: Context, client: string): void {
  if (readUserFile(context.userFile).some(({ name }) => name === client))
    throw new Failure('failed', `${client} already has a password`, `webjobctl client passwd ${client} --generate`);
  if (findLatest(listCertificates(context.etcDirectory), client))
    throw new Failure('failed', `${client} already has a certificate`, `webjobctl client renew ${client}`);
}

export const profileOf = ({ settings }: Context, client: string): string => join(settings.profilesDirectory, client);

function makeProfile(context: Context, client: string): void {
  const folder = join(profileOf(context, client), 'commands');
  process.umask(0o022);
  try {
    makeFolder(folder);
  } catch (error) {
    throw new Failure('failed', `${folder} cannot be made: ${errorCode(error)}`);
  }
}

function warnOfGaps(
  { settings, etcDirectory }: Context,
  proof: { password: boolean; certificate: boolean },
  hasNoBundle: boolean,
): void {
  const { sslRequireSsl, sslRequireCn, sslRequireMatch } = settings;
  if (proof.password && !sslRequireSsl) warn('without TLS the password can be read on the network: SslRequireSsl=N');
  const takesBoth = existsSync(join(etcDirectory, 'webjob-certificates.conf'));
  if (proof.certificate && !sslRequireMatch && !takesBoth)
    warn('the server does not ask for certificates: SslRequireMatch=N');
  if (!proof.certificate && (sslRequireCn || sslRequireMatch)) warn('the server requires a certificate: --cert');
  if (sslRequireSsl && hasNoBundle) warn('a C client needs a CA file: --ca FILE');
}
