// Proves that the running httpd keeps a removed client out: a test user and two test certificates
// are made, removed together with the client, and httpd is asked with them.
import { randomBytes, X509Certificate } from 'node:crypto';
import { request as plainRequest } from 'node:http';
import { request as secureRequest } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';
import { issueCertificate, PROBE_NAME, revokeCertificates } from './certificates.ts';
import type { Context } from './context.ts';
import { removeUser, setUser } from './userfile.ts';

const TIME_LIMIT_MS = 10_000;
/** A graceful restart takes effect a moment after the command. */
const RELOAD_LIMIT_MS = 15_000;
const LOOK_MS = 200;

/** The credentials of a caller. */
interface Proof {
  auth?: string;
  cert?: string;
  key?: string;
}

/**
 * The status from httpd; 0 when it ended the handshake or the connection. Throws Failure `failed`
 * when no server answers.
 */
function ask(url: string, { auth, cert, key }: Proof): Promise<number> {
  return new Promise((resolve, reject) => {
    const isTls = url.startsWith('https:');
    const request = (isTls ? secureRequest : plainRequest)(
      url,
      {
        agent: false,
        rejectUnauthorized: false,
        signal: AbortSignal.timeout(TIME_LIMIT_MS),
        cert,
        key,
        headers: { 'Content-Length': 0, ...(auth !== undefined && { Authorization: `Basic ${auth}` }) },
      },
      (response) => {
        response.resume();
        response.on('end', () => resolve(response.statusCode ?? 0));
        response.on('error', () => resolve(0));
      },
    );
    request.on('error', (error) => {
      if (!/ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ABORT_ERR/.test(errorCode(error))) resolve(0);
      else reject(new Failure('failed', `nothing is proved: ${url} cannot be reached: ${error.message}`, '--url URL'));
    });
    request.end();
  });
}

/** Asks until the answer is as expected; false when the time limit is reached. */
async function becomes(url: string, proof: Proof, isWanted: (status: number) => boolean): Promise<boolean> {
  for (const deadline = Date.now() + RELOAD_LIMIT_MS; ; await sleep(LOOK_MS)) {
    if (isWanted(await ask(url, proof))) return true;
    if (Date.now() > deadline) return false;
  }
}

export interface PasswordProof {
  /** Removes the test user, together with the client. */
  remove(): void;
  /**
   * Call this after the reload. Throws Failure `failed` when removed users are still accepted, or
   * never were.
   */
  check(): Promise<void>;
}

/**
 * Adds a test user to the user file, and waits until httpd accepts it. If httpd does not, check()
 * throws the failure. Throws Failure `failed`.
 */
export async function beginPasswordProof({ userFile }: Context, url: string): Promise<PasswordProof> {
  const password = randomBytes(24).toString('base64url');
  const proof = { auth: Buffer.from(`${PROBE_NAME}:${password}`).toString('base64') };
  setUser(userFile, PROBE_NAME, password);
  const earlier = await ask(url, proof).catch((error: Failure) => error);
  return {
    remove: () => void removeUser(userFile, PROBE_NAME),
    async check() {
      if (earlier instanceof Failure) throw earlier;
      await checkPassword(url, proof, userFile, earlier);
    },
  };
}

async function checkPassword(url: string, proof: Proof, userFile: string, earlier: number): Promise<void> {
  if (earlier === 0 || earlier === 401)
    throw new Failure(
      'failed',
      `${url} does not accept users of ${userFile}, so removing one there proves nothing`,
      'AuthUserFile in .htaccess names the file that httpd reads: --user-file FILE; if httpd reads a DBM file, make it from the user file',
    );
  if (await becomes(url, proof, (status) => status === 401)) return;
  throw new Failure(
    'failed',
    `users removed from ${userFile} are still accepted: httpd caches passwords (AuthnCacheProvideFor)`,
    'they expire after AuthnCacheTimeout, or with a full restart of httpd',
  );
}

interface Canary {
  serial: string;
  proof: Proof;
}

/**
 * Two test certificates: `revoked` is revoked together with the client's, `good` shows that others
 * are still accepted.
 */
export function issueCanaries({ etcDirectory }: Context): { revoked: Canary; good: Canary } {
  const make = (): Canary => {
    const { certificate, key } = issueCertificate(etcDirectory, PROBE_NAME, 1, 'new key');
    return { serial: new X509Certificate(certificate).serialNumber, proof: { cert: certificate, key: key ?? '' } };
  };
  return { revoked: make(), good: make() };
}

/**
 * Call this after the reload. Throws Failure `failed` when httpd still accepts revoked
 * certificates.
 */
export async function proveRevocation(
  { etcDirectory }: Context,
  url: string,
  { revoked, good }: { revoked: Canary; good: Canary },
): Promise<void> {
  // A client that passes the handshake always gets an answer; no answer means that strict
  // webjob-certificates.conf refused it.
  const isRefused = await becomes(url, revoked.proof, (status) => status === 0);
  const isOtherwiseFine = isRefused && (await ask(url, good.proof)) !== 0;
  revokeCertificates(etcDirectory, [good.serial]);
  if (!isRefused)
    throw new Failure(
      'failed',
      `${url} still accepts revoked certificates`,
      'httpd must read webjob-ca.crl: Define WEBJOB_CRL_FILE before webjob-certificates.conf is included',
    );
  if (!isOtherwiseFine)
    throw new Failure('failed', `${url} accepts no certificate of the site, so nothing is proven`, '--url URL');
}
