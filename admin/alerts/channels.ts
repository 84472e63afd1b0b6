// The channels of alerts: mail by sendmail or SMTP, a webhook, a program. Each takes at most the
// configured time, and throws Failure `failed` for a message that was not accepted.
import { spawnSync } from 'node:child_process';
import { createHash, createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';
import { safeLine } from '../../cli/output.ts';
import { type Channel, targetOf } from '../../fleet/expect.ts';
import type { Letter } from './message.ts';

type Of<Kind extends Channel['kind']> = Extract<Channel, { kind: Kind }>;

/**
 * Names a channel; the name changes only with the receiver. It contains only the host of a URL,
 * because the path may be a secret; a digest distinguishes channels to the same host.
 */
export function nameChannel(channel: Channel): string {
  const target = targetOf(channel);
  if (channel.kind !== 'webhook') return `${channel.kind} ${target}`;
  const digest = createHash('sha256').update(target).digest('hex').slice(0, 8);
  return `webhook ${URL.parse(target)?.host ?? target} ${digest}`;
}

/** Resolves when the receiver has accepted the message. */
export async function send(channel: Channel, letter: Letter, attempt: number, seconds: number): Promise<void> {
  switch (channel.kind) {
    case 'mail':
      return await sendMail(channel, letter, attempt, seconds);
    case 'webhook':
      return await post(channel, letter, seconds);
    default:
      return runCommand(channel, letter, attempt, seconds);
  }
}

/** The first line of a file with a secret. Throws Failure `failed`. */
function readSecret(path: string): string {
  try {
    return readFileSync(path, 'utf8').split(/\r?\n/)[0] ?? '';
  } catch (error) {
    throw new Failure('failed', `${path} cannot be read: ${errorCode(error)}`);
  }
}

async function sendMail(mail: Of<'mail'>, letter: Letter, attempt: number, seconds: number): Promise<void> {
  const { createTransport } = await import('nodemailer');
  const message = {
    from: mail.from,
    to: [...mail.to],
    subject: letter.subject,
    text: letter.text,
    date: letter.at,
    messageId: `<${letter.id}@${hostname()}>`,
    disableFileAccess: true,
    disableUrlAccess: true,
    headers: { 'Auto-Submitted': 'auto-generated', 'X-WebJob-Alert': letter.id, 'X-WebJob-Attempt': String(attempt) },
  };
  const { smtp } = mail;
  if (smtp === undefined) {
    const composer = createTransport({ streamTransport: true, buffer: true, newline: 'unix' });
    const { message: bytes } = await composer.sendMail(message);
    runProgram(mail.sendmail, ['-i', '-f', mail.from, ...mail.to], bytes as Buffer, seconds);
    return;
  }
  const url = new URL(smtp);
  const isSecure = url.protocol === 'smtps:';
  const timeout = seconds * 1000;
  const transport = createTransport({
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: Number(url.port) || (isSecure ? 465 : 25),
    secure: isSecure,
    // A password is sent over TLS or not at all.
    requireTLS: mail.user !== undefined && !isSecure,
    name: hostname(),
    connectionTimeout: timeout,
    greetingTimeout: timeout,
    socketTimeout: timeout,
    dnsTimeout: timeout,
    ...(mail.user !== undefined && { auth: { user: mail.user, pass: readSecret(mail.passwordFile ?? '') } }),
  });
  // A server that sends byte by byte would keep the socket from ever being idle.
  const expired = delay(timeout * 2, undefined, { ref: false }).then(() => {
    throw new Error(`it took more than ${seconds * 2} s`);
  });
  try {
    await Promise.race([transport.sendMail(message), expired]);
  } catch (error) {
    throw new Failure('failed', safeLine(`${url.host}: ${(error as Error).message}`));
  } finally {
    transport.close();
  }
}

/** A URL, given directly or as the name of a file that contains it. */
function readUrl(given: string): URL {
  const text = given.startsWith('@') ? readSecret(given.slice(1)) : given;
  const url = URL.parse(text);
  if (!url || !/^https?:$/.test(url.protocol))
    throw new Failure('failed', `${given} does not contain an http or https URL`);
  return url;
}

/**
 * The headers of Standard Webhooks (https://www.standardwebhooks.com), which prove the sender and
 * the time and identify repeated messages.
 */
export function signHeaders(
  letter: Pick<Letter, 'id' | 'json'>,
  secret: string | undefined,
  now: Date,
): Record<string, string> {
  const timestamp = String(Math.floor(now.getTime() / 1000));
  const id = `msg_${letter.id}`;
  const headers = { 'webhook-id': id, 'webhook-timestamp': timestamp, 'idempotency-key': `"${id}"` };
  if (secret === undefined) return headers;
  const key = secret.startsWith('whsec_') ? Buffer.from(secret.slice('whsec_'.length), 'base64') : Buffer.from(secret);
  const signature = createHmac('sha256', key).update(`${id}.${timestamp}.${letter.json}`).digest('base64');
  return { ...headers, 'webhook-signature': `v1,${signature}` };
}

async function post({ url, secretFile }: Of<'webhook'>, letter: Letter, seconds: number): Promise<void> {
  const secret = secretFile === undefined ? undefined : readSecret(secretFile);
  if (secret === '') throw new Failure('failed', `${secretFile} is empty`);
  const headers = { 'content-type': 'application/json', ...signHeaders(letter, secret, new Date()) };
  await ask(readUrl(url), { method: 'POST', headers, body: letter.json }, seconds);
}

/** Pings an external monitor, which raises an alarm when pings stop. */
export async function ping(url: string, seconds: number): Promise<void> {
  await ask(readUrl(url), { method: 'GET' }, seconds);
}

const MAX_REDIRECTS = 3;

/** Follows a redirect that keeps the method and the host; the message must not go elsewhere. */
async function ask(first: URL, request: RequestInit, seconds: number): Promise<void> {
  const signal = AbortSignal.timeout(seconds * 1000);
  let url = first;
  try {
    for (let count = 0; ; count++) {
      const answer = await fetch(url, { ...request, redirect: 'manual', signal });
      await answer.body?.cancel();
      if (answer.ok) return;
      const next = URL.parse(answer.headers.get('location') ?? '', url.href);
      if (answer.status < 300 || answer.status > 399 || !next) throw refused(first, `it answered ${answer.status}`);
      const isKept = answer.status === 307 || answer.status === 308 || request.method === 'GET';
      const isSafer = url.protocol === 'http:' && next.protocol === 'https:' && next.hostname === url.hostname;
      if (!isKept || count === MAX_REDIRECTS || (next.origin !== url.origin && !isSafer))
        throw refused(first, `it answered ${answer.status} with a redirect to ${next.origin}, which is not followed`);
      url = next;
    }
  } catch (error) {
    if (error instanceof Failure) throw error;
    const { message, name, cause } = error as Error;
    if (name === 'TimeoutError') throw refused(first, `no answer within ${seconds} s`);
    throw refused(first, cause instanceof Error ? cause.message || cause.name : message);
  }
}

/** The path of the URL is not shown, because it may be a secret. */
function refused({ host }: URL, reason: string): Failure {
  return new Failure('failed', safeLine(`${host}: ${reason}`));
}

function runCommand({ words }: Of<'command'>, letter: Letter, attempt: number, seconds: number): void {
  const [program = '', ...args] = words;
  runProgram(program, args, Buffer.from(letter.json), seconds, {
    WEBJOB_ALERT_ID: letter.id,
    WEBJOB_ALERT_ATTEMPT: String(attempt),
    WEBJOB_ALERT_SUBJECT: letter.subject,
  });
}

/**
 * Runs a program without a shell. Its output is discarded, because a background process could hold
 * our streams open.
 */
function runProgram(
  program: string,
  args: readonly string[],
  input: Buffer,
  seconds: number,
  environment: Record<string, string> = {},
): void {
  const { status, signal, error } = spawnSync(program, args, {
    input,
    stdio: ['pipe', 'ignore', 'ignore'],
    timeout: seconds * 1000,
    killSignal: 'SIGKILL',
    env: { ...process.env, ...environment },
  });
  const { code } = (error ?? {}) as NodeJS.ErrnoException;
  if (code === 'ETIMEDOUT') throw new Failure('failed', `${program} did not end within ${seconds} s`);
  // A program need not read its input.
  if (error && code !== 'EPIPE') throw new Failure('failed', `${program} cannot be run: ${code}`);
  if (status !== 0) throw new Failure('failed', `${program} ended with ${signal ?? status}`);
}
