// Connects to PostgreSQL by a URL without a password. The password comes from the same sources as
// that of psql.
import { existsSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import type { Client } from 'pg';
import { Failure } from '../../cli/failure.ts';
import { MIGRATIONS } from './schema.ts';

export type Connection = Client;

const CONNECT_MS = 15_000;

/**
 * The parts of a URL as libpq accepts it, which need not name a host: user and password, host, and
 * the rest.
 */
const URL_PARTS = /^postgres(?:ql)?:\/\/(?:([^@/?#]*)@)?([^/?#]*)([^#]*)$/;

/**
 * Checks a URL. Throws Failure `usage` for any other text, and for a URL with a password, which
 * every user could see in the list of processes.
 */
function checkUrl(text: string): void {
  const [, user = '', , more] = URL_PARTS.exec(text) ?? [];
  if (more === undefined)
    throw new Failure(
      'usage',
      // The text is not shown, because it may contain a password.
      'not a PostgreSQL URL',
      "as in 'postgresql://webjob@db.example.org/webjob?sslmode=verify-full'",
    );
  if (user.includes(':') || /[?&]password=/i.test(more))
    throw new Failure(
      'usage',
      'the URL contains a password, which everyone who lists processes can see',
      'write it into ~/.pgpass, as HOST:PORT:DATABASE:USER:PASSWORD, and: chmod 600 ~/.pgpass',
    );
}

/** The URL as messages name it. */
function describeUrl(text: string): string {
  const [, , host, more = ''] = URL_PARTS.exec(text) ?? [];
  const [path = '', query] = more.split('?');
  return `${host || new URLSearchParams(query).get('host') || 'the local PostgreSQL'}${path}`;
}

/** The socket directories of Debian and of PostgreSQL itself. */
const SOCKETS = ['/run/postgresql', '/var/run/postgresql', '/tmp'];

/** Completes a URL as libpq does: with this machine's socket and the name of the current user. */
export function completeUrl(text: string, environment = process.env): string {
  const [, user = '', host = '', more = ''] = URL_PARTS.exec(text) ?? [];
  const given = new URLSearchParams(more.split('?')[1]);
  const added = new URLSearchParams();
  const socket = `.s.PGSQL.${given.get('port') ?? environment.PGPORT ?? 5432}`;
  const folder = SOCKETS.find((path) => existsSync(join(path, socket)));
  if (host === '' && !given.has('host') && !environment.PGHOST && folder) added.set('host', folder);
  if (user === '' && !given.has('user') && !environment.PGUSER) added.set('user', userInfo().username);
  return added.size === 0 ? text : `${text}${more.includes('?') ? '&' : '?'}${added}`;
}

/** Connects to a database. Throws Failure `failed`. */
export async function connect(url: string): Promise<Client> {
  checkUrl(url);
  const { Client } = await import('pg');
  const client = new Client({
    connectionString: completeUrl(url),
    connectionTimeoutMillis: CONNECT_MS,
    keepAlive: true,
    application_name: 'webjobctl',
  });
  // A connection that breaks between two queries makes the next one fail.
  client.on('error', () => {});
  try {
    await client.connect();
    // The server may have different defaults.
    await client.query(
      "SET TIME ZONE 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'iso_8601'; SET client_encoding = 'UTF8'",
    );
    return client;
  } catch (error) {
    await client.end().catch(() => {});
    throw failureOf(error, url);
  }
}

const REMEDIES: Readonly<Record<string, string>> = {
  '28P01': 'the password is taken from PGPASSWORD, or from a line HOST:PORT:DATABASE:USER:PASSWORD in ~/.pgpass',
  '28000': 'the role must exist with LOGIN, and pg_hba.conf of the server must allow it from here',
  '3D000': 'make it: createdb NAME',
  '42501': 'webjobctl ledger setup --writer ROLE --reader ROLE says what each role may',
  '42P01': 'webjobctl ledger setup makes the tables',
  ECONNREFUSED: 'check the server: pg_isready',
};

/** Turns an error of the server into a failure that names the server. */
export function failureOf(error: unknown, url: string): Error {
  if (error instanceof Failure) return error;
  const { code, message, severity } = error as Error & { code?: string; severity?: string };
  const isOurs = severity === undefined && code === undefined && !/timeout|terminated|password/i.test(message);
  if (isOurs) return error as Error;
  return new Failure('failed', `${describeUrl(url)}: ${message || code}`, REMEDIES[code ?? ''] ?? [], { cause: error });
}

/**
 * Checks the version of a database. Throws Failure `failed` for a database without our tables or
 * with tables of another version.
 */
export async function requireVersion(client: Client): Promise<void> {
  const version = await readVersion(client);
  if (version === MIGRATIONS.length) return;
  if (version > MIGRATIONS.length)
    throw new Failure('failed', `the tables are those of a later webjobctl (version ${version})`, 'update this one');
  throw new Failure(
    'failed',
    version === 0
      ? 'the database has no tables of webjobctl'
      : `the tables are those of an earlier webjobctl (version ${version})`,
    'as their owner, run: webjobctl ledger setup --to URL',
  );
}

/**
 * The number of steps of MIGRATIONS that were applied to a database; 0 for a database without our
 * tables.
 */
export async function readVersion(client: Client): Promise<number> {
  const { rows: known } = await client.query("SELECT to_regclass('webjob.facts') IS NOT NULL AS known");
  if (!known[0]?.known) return 0;
  const { rows } = await client.query("SELECT value FROM webjob.facts WHERE name = 'version'");
  return Number(rows[0]?.value ?? 0);
}
