// Makes the tables of the database of many sites, migrates those of an earlier version, and grants
// rights to roles.
import type { Client } from 'pg';
import { Failure } from '../../cli/failure.ts';
import { readVersion } from './connect.ts';
import { GRANTS, MIGRATIONS } from './schema.ts';

export interface Roles {
  writer?: string | undefined;
  reader?: string | undefined;
}

export interface SetUp {
  /** The earlier version of the tables, 0 for none, and the current version. */
  from: number;
  to: number;
  /** Roles that were created; they cannot log in yet. */
  made: string[];
}

/**
 * Sets up the database in one transaction. Throws Failure `failed`, and the errors of the server.
 */
export async function setUp(client: Client, roles: Roles): Promise<SetUp> {
  await client.query('BEGIN');
  try {
    await client.query("SELECT pg_advisory_xact_lock(hashtext('webjob.setup'))");
    const from = await readVersion(client);
    if (from > MIGRATIONS.length)
      throw new Failure('failed', `the tables are those of a later webjobctl (version ${from})`, 'update this one');
    for (const step of MIGRATIONS.slice(from)) await client.query(step);
    await client.query(
      "INSERT INTO webjob.facts VALUES ('version', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
      [String(MIGRATIONS.length)],
    );
    const made: string[] = [];
    for (const kind of ['writer', 'reader'] as const) {
      const role = roles[kind];
      if (role === undefined) continue;
      const quoted = client.escapeIdentifier(role);
      const { rowCount } = await client.query('SELECT FROM pg_roles WHERE rolname = $1', [role]);
      if (rowCount === 0) {
        await client.query(`CREATE ROLE ${quoted} NOLOGIN`);
        made.push(role);
      }
      await client.query(GRANTS[kind].replaceAll('%', () => quoted));
    }
    await client.query('COMMIT');
    return { from, to: MIGRATIONS.length, made };
  } catch (error) {
    await client.query('ROLLBACK').catch(() => {});
    throw error;
  }
}
