// A private PostgreSQL for a test, in a directory of its own, run by a user other than root. It
// listens only on a socket there.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { obtainPostgres, type PostgresPrograms } from '../../scripts/postgres-package.ts';
import { noteGroup } from '../../scripts/test-leftovers.ts';
import { findWebUser } from '../../scripts/web-user.ts';

const START_LIMIT_MS = 60_000;

export class PostgresServer {
  readonly #folder = mkdtempSync('/tmp/webjob-postgres-');
  readonly #programs: PostgresPrograms;
  readonly #user = process.getuid?.() === 0 ? findWebUser() : undefined;
  #server: ChildProcess | undefined;

  constructor(programs: PostgresPrograms) {
    this.#programs = programs;
  }

  /** The URL of a database, for the owner of the server or another role. */
  url(role = 'owner', database = 'webjob'): string {
    return `postgresql://${role}@/${database}?host=${this.#folder}`;
  }

  /** With an empty database `webjob`. */
  async make(): Promise<void> {
    if (this.#user) chownSync(this.#folder, this.#user.uid, this.#user.gid);
    const args = ['-D', this.#data, '-A', 'trust', '-U', 'owner', '-E', 'UTF8', '--locale=C.UTF-8', '--no-sync'];
    const { status, stderr } = spawnSync(join(this.#programs.bin, 'initdb'), args, {
      ...this.#options,
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(`initdb: ${stderr}`);
    await this.start();
    await this.query('CREATE DATABASE webjob', 'postgres');
  }

  async query(text: string, database = 'webjob'): Promise<Record<string, unknown>[]> {
    const client = new Client({ connectionString: this.url('owner', database) });
    client.on('error', () => {});
    await client.connect();
    try {
      return (await client.query(text)).rows;
    } finally {
      await client.end();
    }
  }

  async start(): Promise<void> {
    const args = ['-D', this.#data, '-k', this.#folder, '-h', '', '-c', 'jit=off', '-c', 'max_connections=40'];
    const server = spawn(join(this.#programs.bin, 'postgres'), args, { ...this.#options, detached: true });
    noteGroup(server.pid);
    this.#server = server;
    let said = '';
    server.stderr?.on('data', (chunk: Buffer) => {
      said += chunk;
    });
    for (const deadline = Date.now() + START_LIMIT_MS; Date.now() < deadline; await sleep(50)) {
      if (server.exitCode !== null) break;
      try {
        await this.query('SELECT 1', 'postgres');
        return;
      } catch {
        // Not ready yet.
      }
    }
    throw new Error(`PostgreSQL did not start: ${said}`);
  }

  /** Ends the server without a clean shutdown, and starts it with what is on disk. */
  async crash(): Promise<void> {
    await this.#end();
    await this.start();
  }

  async stop(): Promise<void> {
    await this.#end();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #end(): Promise<void> {
    const server = this.#server;
    if (!server || server.exitCode !== null || server.signalCode !== null) return;
    const ended = once(server, 'exit');
    // Immediate shutdown.
    server.kill('SIGQUIT');
    await ended;
  }

  get #data(): string {
    return join(this.#folder, 'data');
  }

  get #options() {
    return {
      cwd: this.#folder,
      stdio: ['ignore', 'ignore', 'pipe'] as ['ignore', 'ignore', 'pipe'],
      env: { PATH: process.env.PATH, LC_ALL: 'C.UTF-8', TZ: 'UTC', LD_LIBRARY_PATH: this.#programs.libraryPath },
      ...(this.#user && { uid: this.#user.uid, gid: this.#user.gid }),
    };
  }
}

const programs = obtainPostgres();
export const NO_POSTGRES = programs === undefined && 'PostgreSQL is not to be had';

export async function startPostgres(): Promise<PostgresServer> {
  if (!programs) throw new Error('PostgreSQL is not to be had');
  const server = new PostgresServer(programs);
  await server.make();
  return server;
}
