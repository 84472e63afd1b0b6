// Legal holds: the clients and jobs that no prune and no pack may touch. One JSON value on each
// line, replaced as a whole. A file that cannot be read is an error for every caller and never
// counts as no holds.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeField, isClientId, isJobId } from 'webjob-protocol';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { Failure } from '../../cli/failure.ts';
import { replaceFile } from '../../cli/files.ts';
import { keepFolder } from '../site/site-lock.ts';

export interface Hold {
  kind: 'client' | 'job';
  id: string;
  reason: string;
  by: string;
  /** ISO 8601. */
  at: string;
}

const KINDS = { client: isClientId, job: isJobId } as const;

/** Whether this is a client id or a job id, depending on `kind`. */
export function isHoldId(kind: Hold['kind'], id: string): boolean {
  return KINDS[kind](id);
}

function holdsFile(settings: ServerSettings): string {
  return join(keepFolder(settings), 'holds.jsonl');
}

/** All holds, oldest first. Throws Failure `failed` for a file that cannot be read or parsed. */
export function readHolds(settings: ServerSettings): Hold[] {
  const path = holdsFile(settings);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return [];
    throw new Failure('failed', `${path} cannot be read: ${code}`, 'nothing is removed until it can be read');
  }
  const lines = text.split('\n');
  if (lines.pop() !== '') throw new Failure('failed', `${path}: the last line is truncated`);
  return lines.map((line, index) => {
    const hold = parseHold(line);
    if (!hold)
      throw new Failure(
        'failed',
        `${path}: line ${index + 1} does not name a hold`,
        'nothing is removed until it can be read',
      );
    return hold;
  });
}

function parseHold(line: string): Hold | undefined {
  try {
    const { kind, id, reason, by, at } = JSON.parse(line) as Hold;
    const isHold = Object.hasOwn(KINDS, kind) && [id, reason, by, at].every((field) => typeof field === 'string');
    return isHold && isHoldId(kind, id) ? { kind, id, reason, by, at } : undefined;
  } catch {
    return undefined;
  }
}

/** Replaces the file, under the caller's lock. A kill leaves the old one or the new one. */
export function writeHolds(settings: ServerSettings, holds: readonly Hold[]): void {
  const text = holds.map((hold) => `${JSON.stringify(hold)}\n`).join('');
  replaceFile(holdsFile(settings), text, { mode: 0o600 });
}

/** The known facts about an upload's client and job. */
export interface Claims {
  name: string;
  jobId: string | undefined;
  /** Every client id in the log or the run record. */
  clients: readonly string[];
}

/**
 * The hold that covers an upload. A run record may contain any name, so every source counts: log,
 * run record, and file name. A hold covers too much rather than too little.
 */
export function findHold(holds: readonly Hold[], { name, jobId, clients }: Claims): Hold | undefined {
  return holds.find(({ kind, id }) => {
    if (kind === 'client') return clients.includes(id) || isNamed(name, id);
    // The id has the form of the .rdy file, or is escaped as in the log and in our own lists.
    return jobId !== undefined && (id === jobId || id === encodeField(jobId));
  });
}

/**
 * Whether the client id occurs in the name of an upload without a letter or digit on either side.
 */
export function isNamed(name: string, clientId: string): boolean {
  return new RegExp(`(?<![A-Za-z0-9])${clientId}(?![A-Za-z0-9])`).test(name);
}
