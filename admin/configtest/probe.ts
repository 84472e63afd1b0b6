// configtest --probe: sends the real requests of a client, and one without credentials, and reports
// the answers.
import { createHash, createPrivateKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { request as plainRequest, type RequestOptions } from 'node:http';
import { request as secureRequest } from 'node:https';
import { dirname, join, resolve } from 'node:path';
import { parseKeyValue } from 'webjob-conf';
import {
  formatGetQuery,
  formatPutQuery,
  formatRecord,
  isClientId,
  NOT_APPLICABLE,
  RECORD_FIELDS,
  type RecordField,
} from 'webjob-protocol';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';
import { quote } from '../../cli/shell.ts';
import { signerOf } from '../../notes/ed25519.ts';
import type { NoteSigner } from '../../notes/note.ts';
import { type ResultStreams, resultFields, signResult } from '../../notes/result.ts';
import { error, type Finding, note, warning } from './finding.ts';
import type { Mends } from './mends.ts';

const TIME_LIMIT_MS = 30_000;
/** After this finding no other request is sent, because it would have the same result. */
const UNREACHABLE = 'the server cannot be reached';
const SKEW_MS = 60_000;
const FILE_NAME = 'webjobctl-probe';
const NAMES = { version: 'webjob probe', system: 'webjobctl', fileName: FILE_NAME };

interface Caller {
  clientId: string;
  /** The directory of the client's webjob.conf. */
  folder: string;
  /** `user:password` in base64. */
  auth: string | undefined;
  tls: RequestOptions;
  /** Signs the client's results; undefined for a client that does not sign. */
  signer: NoteSigner | undefined;
}

interface Answer {
  status: number;
  reason: string;
  /** Whether the answer came from the script, not from httpd itself. */
  isOurs: boolean;
  date: string | undefined;
}

export interface ProbeSite {
  settings: Pick<ServerSettings, 'logfilesDirectory'>;
  /** httpd's error log, if it is known. */
  errorLog: string | undefined;
  mends: Mends;
  /** Explains why httpd has no script at a URL; undefined when nothing is known. */
  explainMissing(url: URL): Finding | undefined;
}

/**
 * Probes a server with a client's webjob.conf. Throws Failure for a webjob.conf that cannot be
 * used.
 */
export async function probe(url: string, conf: string, site: ProbeSite): Promise<Finding[]> {
  const caller = readCaller(conf);
  const target = URL.parse(url);
  if (!target || !/^https?:$/.test(target.protocol)) throw new Failure('usage', '--probe is not an http or https URL');
  if (target.pathname === '/') target.pathname = '/webjob/nph-webjob.cgi';
  const stranger = await probeStranger(target, caller, site);
  if (stranger === undefined || stranger.some(({ what }) => what.startsWith(UNREACHABLE)))
    return stranger ?? [site.explainMissing(target) ?? describeMissing(target, site)];
  return [
    ...stranger,
    ...(await probePut(target, caller, 'linktest', site)),
    ...(await probeGet(target, caller, site)),
    ...(await probePut(target, caller, 'snapshot', site)),
  ];
}

function describeMissing(url: URL, site: ProbeSite): Finding {
  return error(`httpd has no script at ${url.pathname}`, url.href, formatLogCommand(site.errorLog));
}

/**
 * Sends a request of the same client without credentials. Returns undefined when httpd itself has
 * nothing at that URL.
 */
async function probeStranger(url: URL, caller: Caller, { mends }: ProbeSite): Promise<Finding[] | undefined> {
  const query = formatGetQuery({ ...NAMES, clientId: caller.clientId });
  const { cert: _cert, key: _key, ...bare } = caller.tls as Record<string, unknown>;
  const answer = await ask(url, 'GET', query, { ...caller, auth: undefined, tls: bare }, Buffer.alloc(0));
  if (answer instanceof Error) {
    // A server that requires a certificate ends the handshake.
    if (/alert|certificate required|socket hang up|ECONNRESET|EPIPE/i.test(`${answer.message} ${errorCode(answer)}`))
      return [];
    return [error(`${UNREACHABLE}: ${answer.message}`, url.href, 'apachectl start  # and is the URL right?')];
  }
  const skew = answer.date === undefined ? 0 : Math.abs(Date.now() - new Date(answer.date).getTime());
  const clock =
    skew > SKEW_MS
      ? [
          warning(
            `the server's clock differs by ${Math.round(skew / 1000)} s`,
            url.href,
            'timedatectl set-ntp true  # on both',
          ),
        ]
      : [];
  if (answer.status === 401 || answer.status === 403) return clock;
  if (answer.status === 404 && !answer.isOurs) return undefined;
  if (answer.status >= 452 && answer.status <= 472)
    return [
      ...clock,
      warning(`httpd lets in anybody; only the script refuses: ${describe(answer)}`, url.href, findAccess(mends)),
    ];
  return [
    ...clock,
    error(
      `requests without credentials are accepted: ${describe(answer)}`,
      url.href,
      `${findAccess(mends)}; RequireUser=Y`,
    ),
  ];
}

const findAccess = ({ webjobctl }: Mends): string =>
  `${webjobctl} configtest  # finds the .htaccess or <Location> that allows it`;

async function probeGet(url: URL, caller: Caller, site: ProbeSite): Promise<Finding[]> {
  const answer = await ask(
    url,
    'GET',
    formatGetQuery({ ...NAMES, clientId: caller.clientId }),
    caller,
    Buffer.alloc(0),
  );
  if (answer instanceof Error)
    return [error(`the GET failed: ${answer.message}`, url.href, formatLogCommand(site.errorLog))];
  // No client has a program of that name, and only authenticated clients are told so.
  if (answer.status === 404 || answer.status === 200) return [note(`GET ${FILE_NAME}: ${describe(answer)}`, url.href)];
  return [error(`GET ${FILE_NAME}: ${describe(answer)}`, url.href, findReason(answer, caller, site))];
}

async function probePut(
  url: URL,
  caller: Caller,
  runType: 'linktest' | 'snapshot',
  site: ProbeSite,
): Promise<Finding[]> {
  const out = Buffer.from('webjobctl configtest --probe\n');
  const jobId = `probe_${Math.floor(Date.now() / 1000)}_${String(process.pid).padStart(5, '0')}`;
  const env = Buffer.from(formatEnv(caller, jobId, out));
  const lengths = { outLength: out.length, errLength: 0, envLength: env.length };
  const query = formatPutQuery({ ...NAMES, clientId: caller.clientId, runType, ...lengths });
  const answer = await ask(url, 'PUT', query, caller, Buffer.concat([out, env]), jobId);
  const what = runType === 'linktest' ? 'link test' : 'PUT';
  if (answer instanceof Error)
    return [error(`the ${what} failed: ${answer.message}`, url.href, formatLogCommand(site.errorLog))];
  // Under fcgiwrap nginx turns every answer of an older script into 200.
  const isLost = runType === 'linktest' && answer.status === 200;
  const why = isLost ? ' instead of 251: the status is lost in transit, and refusals look like successes' : '';
  if (answer.status !== (runType === 'linktest' ? 251 : 200))
    return [error(`${what}: ${describe(answer)}${why}`, url.href, findReason(answer, caller, site))];
  const left = runType === 'snapshot' ? `; job ${jobId} is in the locker now` : '';
  return [note(`${what}: ${describe(answer)}${left}`, url.href)];
}

/** The run record, signed if the client signs, because verify would report an unsigned one. */
function formatEnv({ clientId, signer }: Caller, jobId: string, out: Buffer): string {
  const describeStream = (bytes: Buffer): ResultStreams['out'] => ({
    bytes: bytes.length,
    sha256: createHash('sha256').update(bytes).digest('hex'),
  });
  const extra = signer ? resultFields({ out: describeStream(out), err: describeStream(Buffer.alloc(0)) }) : [];
  const record = formatRecord({ fields: describeProbe(clientId, jobId, out), extra });
  return signer ? signResult(record, signer) : record;
}

function describeProbe(clientId: string, jobId: string, out: Buffer): Record<RecordField, string> {
  const md5 = (bytes: Buffer): string => createHash('md5').update(bytes).digest('hex');
  const fields = Object.fromEntries(RECORD_FIELDS.map((name) => [name, NOT_APPLICABLE])) as Record<RecordField, string>;
  return {
    ...fields,
    Version: NAMES.version,
    SystemOS: NAMES.system,
    ClientId: clientId,
    Jid: jobId,
    GetRequest: FILE_NAME,
    Command: FILE_NAME,
    CommandLine: FILE_NAME,
    KidStatus: '0',
    KidSignal: '0',
    HashType: 'MD5',
    StdOutHash: md5(out),
    StdErrHash: md5(Buffer.alloc(0)),
  };
}

/** Only requests that the script answers are in its log. */
function findReason({ status, isOurs }: Answer, caller: Caller, { settings, errorLog, mends }: ProbeSite): string {
  if (status === 401) {
    const passwd = `${mends.webjobctl} client passwd ${caller.clientId} --generate --out ${quote(caller.folder)}`;
    return `${passwd}  # httpd knows no such user with this password`;
  }
  return isOurs && status !== 500
    ? `tail -n 5 ${quote(join(settings.logfilesDirectory, 'nph-webjob.log'))}  # docs/protocol.md, section 3`
    : formatLogCommand(errorLog);
}

function formatLogCommand(errorLog: string | undefined): string {
  return errorLog === undefined ? "httpd's error log says why" : `tail -n 20 ${quote(errorLog)}`;
}

const describe = ({ status, reason }: Answer): string => `${status} ${reason}`;

/** Sends a request; returns an Error when there is no answer. */
function ask(
  url: URL,
  method: string,
  query: string,
  caller: Caller,
  body: Buffer,
  jobId?: string,
): Promise<Answer | Error> {
  return new Promise((resolve) => {
    const request = (url.protocol === 'https:' ? secureRequest : plainRequest)(
      {
        ...caller.tls,
        method,
        host: url.hostname.replace(/^\[|\]$/g, ''),
        port: url.port,
        path: `${url.pathname}?${query}`,
        headers: {
          'Content-Length': body.length,
          ...(jobId !== undefined && { 'Job-Id': jobId }),
          ...(caller.auth !== undefined && { Authorization: `Basic ${caller.auth}` }),
        },
        agent: false,
        signal: AbortSignal.timeout(TIME_LIMIT_MS),
      },
      (response) => {
        response.resume();
        const { 'content-type': type, date } = response.headers;
        const answer = { status: response.statusCode ?? 0, reason: response.statusMessage ?? '' };
        response.on('end', () => resolve({ ...answer, isOurs: type === 'application/octet-stream', date }));
        response.on('error', resolve);
      },
    );
    request.on('error', resolve);
    request.end(body);
  });
}

function readCaller(conf: string): Caller {
  const controls = new Map(
    parseKeyValue(readPem('--as', conf)).entries.map(({ key, value }) => [key.toLowerCase(), value]),
  );
  const get = (key: string): string => controls.get(key.toLowerCase()) ?? '';
  const pathOf = (key: string): string => resolve(dirname(conf), get(key));
  const isOn = (key: string): boolean => /^y$/i.test(get(key));
  const clientId = get('ClientId');
  if (!isClientId(clientId)) throw new Failure('failed', `--as: ${conf} has no ClientId`);
  // The credentials byte for byte, in any encoding.
  const bytes = new Map(
    parseKeyValue(readPem('--as', conf, 'latin1'), 'bytes').entries.map(({ key, value }) => [key.toLowerCase(), value]),
  );
  const pair = `${bytes.get('urlusername') ?? ''}:${bytes.get('urlpassword') ?? ''}`;
  const auth = /^basic$/i.test(get('URLAuthType')) ? Buffer.from(pair, 'latin1').toString('base64') : undefined;
  const name = get('SSLExpectedPeerCN');
  return {
    clientId,
    auth,
    folder: dirname(resolve(conf)),
    signer: get('ResultKeyFile') === '' ? undefined : readSigner(clientId, pathOf('ResultKeyFile')),
    tls: {
      rejectUnauthorized: isOn('SSLVerifyPeerCert') || isOn('SSLVerifyHost'),
      ...(get('SSLBundledCAsFile') !== '' && { ca: readPem('SSLBundledCAsFile', pathOf('SSLBundledCAsFile')) }),
      ...(isOn('SSLUseCertificate') && {
        cert: readPem('SSLPublicCertFile', pathOf('SSLPublicCertFile')),
        key: readPem('SSLPrivateKeyFile', pathOf('SSLPrivateKeyFile')),
      }),
      checkServerIdentity: (_host: string, { subject }: { subject: { CN: string } }) =>
        name === '' || subject.CN === name ? undefined : new Error('the CN of the server is not SSLExpectedPeerCN'),
    } as RequestOptions,
  };
}

function readSigner(clientId: string, path: string): NoteSigner {
  const pem = readPem('ResultKeyFile', path);
  try {
    return signerOf(clientId, createPrivateKey(pem));
  } catch {
    throw new Failure('failed', `ResultKeyFile: ${path} is not a private key in PEM`);
  }
}

function readPem(control: string, path: string, encoding: 'utf8' | 'latin1' = 'utf8'): string {
  try {
    return readFileSync(path, encoding);
  } catch (failure) {
    throw new Failure('failed', `${control}: ${path} cannot be read: ${errorCode(failure)}`);
  }
}
