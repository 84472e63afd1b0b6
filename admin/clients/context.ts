// The context of every `webjobctl client` command: the site's user file, its CA, its profiles, and
// the name of the server.
import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { isClientId } from 'webjob-protocol';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';
import { nextServerCertificateOf } from '../site/authority.ts';
import { globalOptions, openSite } from '../site/site.ts';

/** The context of a command. */
export interface Context {
  settings: ServerSettings;
  isJson: boolean;
  etcDirectory: string;
  userFile: string;
}

export interface ContextOptions {
  userFile?: string;
}

/** Opens the site of a command. Throws Failure `settings` when there is no nph-webjob.cfg. */
export function openContext(command: Command): Context {
  const { propertiesFile, settings } = openSite(command);
  if (propertiesFile === undefined)
    throw new Failure(
      'settings',
      'there is no nph-webjob.cfg',
      'create a site with webjobctl init, or name its file with -c FILE',
    );
  const etcDirectory = dirname(resolve(propertiesFile));
  const { userFile = join(etcDirectory, 'webjob.htpasswd') } = command.opts<ContextOptions>();
  return { settings, etcDirectory, userFile, isJson: globalOptions(command).json === true };
}

export function userFileOption(): Option {
  return new Option('--user-file <FILE>', 'the user file (default: webjob.htpasswd beside nph-webjob.cfg)');
}

/** Parses an argument that must be a client id. */
export function parseClientId(text: string): string {
  if (isClientId(text)) return text;
  throw new InvalidArgumentError('a client id is 1 to 64 letters, digits, _ and -.');
}

export function parseDays(text: string): number {
  if (/^[1-9][0-9]{0,3}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('days are 1 to 9999.');
}

/**
 * The first line of a file, or of stdin for `-`, one character for each byte, without a byte order
 * mark. Throws Failure `failed`.
 */
export function readPassword(file: string): string {
  try {
    const text = readFileSync(file === '-' ? 0 : file, 'latin1').replace(/^\xef\xbb\xbf/, '');
    return text.split(/\r?\n/)[0] ?? '';
  } catch (error) {
    throw new Failure('failed', `--password-file: ${file} cannot be read: ${errorCode(error)}`);
  }
}

export interface ServerFacts {
  url: string;
  /**
   * The certificate of the server's issuer, or the self-signed one, in PEM; undefined without TLS
   * or when unknown here.
   */
  bundle: string | undefined;
  commonName: string | undefined;
}

const SCRIPT = '/webjob/nph-webjob.cgi';

/**
 * How clients reach the server: from --url and --ca, or otherwise as init has set it up. Throws
 * Failure.
 */
export function findServer(context: Context, url: string | undefined, caFile: string | undefined): ServerFacts {
  const own = join(context.etcDirectory, 'webjob-server.crt');
  const ownCertificate = existsSync(own) ? readFileSync(own, 'utf8') : undefined;
  const ownName = ownCertificate === undefined ? undefined : findCommonName(ownCertificate);
  const found = parseServerUrl(
    url ?? `${context.settings.sslRequireSsl ? 'https' : 'http'}://${ownName ?? hostname()}`,
  );
  if (found.protocol === 'http:') return { url: found.href, bundle: undefined, commonName: undefined };
  if (caFile !== undefined) return { url: found.href, bundle: readBundle(caFile), commonName: found.hostname };
  const isSelfSigned = ownCertificate !== undefined && isIssuedByItself(ownCertificate);
  return {
    url: found.href,
    bundle: isSelfSigned ? `${ownCertificate}${readNext(context.etcDirectory)}` : undefined,
    commonName: ownName ?? found.hostname,
  };
}

/**
 * The bundle also contains the next certificate, so that clients continue to work when it takes
 * effect.
 */
function readNext(etcDirectory: string): string {
  const next = nextServerCertificateOf(etcDirectory);
  return existsSync(next) ? readFileSync(next, 'utf8') : '';
}

function parseServerUrl(text: string): URL {
  const url = URL.parse(text);
  if (!url || !/^https?:$/.test(url.protocol) || /[?#@\s]/.test(text))
    throw new Failure('usage', '--url is not an http or https URL, or has more than host, port and path');
  if (url.pathname === '/') url.pathname = SCRIPT;
  return url;
}

function readBundle(file: string): string {
  try {
    const text = readFileSync(file, 'utf8');
    new X509Certificate(text);
    return text;
  } catch (error) {
    throw new Failure('failed', `--ca: ${file} is not a certificate in PEM: ${errorCode(error)}`);
  }
}

function findCommonName(pem: string): string | undefined {
  return /^CN=(.+)$/m.exec(new X509Certificate(pem).subject)?.[1];
}

function isIssuedByItself(pem: string): boolean {
  const certificate = new X509Certificate(pem);
  return certificate.verify(certificate.publicKey);
}
