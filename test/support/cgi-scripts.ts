// Scripts in a temporary directory, and helpers to run them under the host of node-cgi-compat.
import { chmodSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';

/** The library as a script outside of the repository can import it. */
export const LIBRARY = pathToFileURL(join(import.meta.dirname, '../../cgi/node-cgi-compat/index.ts')).href;

export interface Folder {
  path: string;
  /** Writes an executable file and returns its path. */
  add(name: string, text: string, mode?: number): string;
  /** A script for the running Node; `text` is an ES module. */
  addNode(name: string, text: string): string;
  remove(): void;
}

export function makeFolder(): Folder {
  const path = realpathSync(mkdtempSync(join(tmpdir(), 'node-cgi-compat-')));
  const add = (name: string, text: string, mode = 0o755): string => {
    const file = join(path, name);
    writeFileSync(file, text);
    chmodSync(file, mode);
    return file;
  };
  const addNode = (name: string, text: string): string => {
    const module = add(`${name}.mjs`, text, 0o644);
    return add(name, `#!/bin/sh\nexec '${process.execPath}' '${module}'\n`);
  };
  return { path, add, addNode, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** Serves a listener on a free port while `use` runs. */
export async function serving<T>(listener: RequestListener, use: (port: number) => Promise<T>): Promise<T> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    return await use((server.address() as AddressInfo).port);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

/**
 * Sends bytes and resolves with everything that comes back until the server ends the connection; a
 * reset is an error.
 */
export function exchangeBytes(port: number, bytes: string | Uint8Array): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const socket = connect({ host: '127.0.0.1', port });
    socket.setTimeout(60_000, () => socket.destroy(new Error('the connection stays open')));
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('error', reject);
    socket.on('end', () => resolve(Buffer.concat(chunks)));
    socket.write(bytes);
  });
}

/** Polls until `look` finds something; throws after a minute. */
export async function until<T>(look: () => T | undefined | false, what: string): Promise<T> {
  for (const deadline = Date.now() + 60_000; Date.now() < deadline; await sleep(10)) {
    const found = look();
    if (found !== undefined && found !== false) return found;
  }
  throw new Error(`${what} did not happen within a minute`);
}

export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
