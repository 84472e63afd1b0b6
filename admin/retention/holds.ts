// Legal holds: which clients and jobs no prune and no pack may touch. One JSON value a line, replaced as a whole. A file that cannot be
// read stops whoever asks: it never counts as no holds.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeField, isClientId, isJobId } from 'webjob-protocol';
import type { ServerSettings } from '../../cgi/controls.ts';
import { Failure } from '../../cli/failure.ts';
import { replaceFile } from '../../cli/files.ts';
import { keepFolder } from '../site/turn.ts';

export interface Hold {
  kind: 'client' | 'job';
  id: string;
  reason: string;
  by: string;
  /** ISO 8601. */
  at: string;
}

const KINDS = { client: isClientId, job: isJobId } as const;

/** True for a client id or a job id, as `kind` says. */
export function isHoldId(kind: Hold['kind'], id: string): boolean {
  return KINDS[kind](id);
}

function holdsFile(settings: ServerSettings): string {
  return join(keepFolder(settings), 'holds.jsonl');
}

/** All holds, the oldest first. Throws Failure `failed` when the file is there and cannot be understood. */
export function readHolds(settings: ServerSettings): Hold[] {
  const path = holdsFile(settings);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return [];
    throw new Failure('failed', `${path} cannot be read: ${code}`, 'without it nothing is removed');
  }
  const lines = text.split('\n');
  if (lines.pop() !== '') throw new Failure('failed', `${path}: the last line is cut off`);
  return lines.map((line, index) => {
    const hold = parseHold(line);
    if (!hold) throw new Failure('failed', `${path}: line ${index + 1} is no hold`, 'without it nothing is removed');
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

/** Replaces the file; whoever calls has the turn at it. A kill leaves the old one or the new. */
export function writeHolds(settings: ServerSettings, holds: readonly Hold[]): void {
  const text = holds.map((hold) => `${JSON.stringify(hold)}\n`).join('');
  replaceFile(holdsFile(settings), text, { mode: 0o600 });
}

/** What is known of who a group belongs to. */
export interface Claims {
  name: string;
  jobId: string | undefined;
  /** Every client id that the log or the record gives it. */
  clients: readonly string[];
}

/**
 * The hold that a group falls under. A record can say what its client likes, so each place that may tell the client counts: log, record,
 * and name. A hold rather covers too much than too little.
 */
export function findHold(holds: readonly Hold[], { name, jobId, clients }: Claims): Hold | undefined {
  return holds.find(({ kind, id }) => {
    if (kind === 'client') return clients.includes(id) || isNamed(name, id);
    // As the .rdy file has it, or as the log and our own lists write it.
    return jobId !== undefined && (id === jobId || id === encodeField(jobId));
  });
}

/** True when the client id stands in the name of a group with no letter or digit at either side. */
export function isNamed(name: string, clientId: string): boolean {
  return new RegExp(`(?<![A-Za-z0-9])${clientId}(?![A-Za-z0-9])`).test(name);
}
