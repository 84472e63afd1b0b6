// Files of signed assignments: makes them, adds signatures, shows them, and checks them as a client
// does (docs/protocol.md, section 12).
import { readFileSync } from 'node:fs';
import { Failure } from '../cli/failure.ts';
import { errorCode, replaceFile } from '../cli/files.ts';
import {
  ASSIGNMENT_SUFFIX,
  type AssignmentText,
  formatAssignmentText,
  openAssignment,
  parseAssignmentText,
} from '../fleet/signed.ts';
import { findOutside, formatSeconds } from '../notes/manifest.ts';
import { addSignature, NoteError, type NoteSignature, type NoteSigner, parseNote, signNote } from '../notes/note.ts';
import type { TrustedKey } from '../notes/trust.ts';
import type { Judgement } from './manifests.ts';

/** A signed assignment of the right form; its signatures have not been checked. */
export interface FoundAssignment {
  /** The whole file. */
  note: string;
  assignment: AssignmentText;
  signatures: NoteSignature[];
}

/** Whether a path ends in the suffix of signed assignments. */
export function isAssignmentFile(path: string): boolean {
  return path.endsWith(ASSIGNMENT_SUFFIX);
}

/** Signs an assignment. Throws Failure `usage` for one that no note can contain. */
export function signAssignment(assignment: AssignmentText, signer: NoteSigner): FoundAssignment {
  try {
    return takeApart(Buffer.from(signNote(formatAssignmentText(assignment), [signer])));
  } catch (error) {
    if (error instanceof NoteError) throw new Failure('usage', `the assignment cannot be signed: ${error.message}`);
    throw error;
  }
}

/** Writes a signed assignment; replaces an existing file. Throws Failure `failed`. */
export function writeAssignment(path: string, note: string): void {
  try {
    replaceFile(path, note, { mode: 0o644 });
  } catch (error) {
    throw failureOf(path, error);
  }
}

/** Reads a signed assignment; its signatures are not checked. Throws Failure `failed`. */
export function readAssignment(path: string): FoundAssignment {
  try {
    return takeApart(readFileSync(path));
  } catch (error) {
    throw failureOf(path, error);
  }
}

/** Adds a signature to a signed assignment. Throws Failure `failed`. */
export function addToAssignment(path: string, signer: NoteSigner): FoundAssignment {
  try {
    const { note } = readAssignment(path);
    const signed = addSignature(parseNote(Buffer.from(note)), signer);
    writeAssignment(path, signed);
    return takeApart(Buffer.from(signed));
  } catch (error) {
    throw failureOf(path, error);
  }
}

/**
 * Judges a signed assignment as a client would at this time, except for due times that the client
 * has already run. Throws Failure `failed`.
 */
export function judgeAssignment(
  path: string,
  trusted: readonly TrustedKey[],
  threshold: number,
  { clientId, at }: { clientId: string | undefined; at: Date },
): Judgement {
  try {
    const { assignment, signers } = openAssignment(readFileSync(path), trusted, threshold);
    const why = findOutside(assignment, { at, ...(clientId !== undefined && { clientId }) });
    if (why !== undefined) return { verdict: 'wrong', why };
    return { verdict: 'good', signers: signers.map(({ name, id }) => `${name}+${id}`) };
  } catch (error) {
    if (error instanceof NoteError) return { verdict: 'wrong', why: error.message };
    throw failureOf(path, error);
  }
}

/** Returns the fields that --json prints. */
export function describeSigned({ assignment, signatures }: FoundAssignment) {
  const { command, args, clients, schedule, notBefore, notAfter, serial } = assignment;
  const when =
    schedule.kind === 'cron' ? { cron: schedule.cron } : schedule.kind === 'every' ? { every: schedule.seconds } : {};
  return {
    command,
    args: [...args],
    clients: [...clients],
    ...when,
    notBefore: formatSeconds(notBefore),
    notAfter: formatSeconds(notAfter),
    serial,
    signers: signatures.map(({ name, id }) => `${name}+${id}`),
  };
}

function takeApart(bytes: Buffer): FoundAssignment {
  const { text, signatures } = parseNote(bytes);
  return { note: bytes.toString(), assignment: parseAssignmentText(text), signatures };
}

function failureOf(path: string, error: unknown): Failure {
  if (error instanceof Failure) return error;
  if (error instanceof NoteError) return new Failure('failed', `${path}: ${error.message}`);
  return new Failure('failed', `${path} cannot be used: ${errorCode(error)}`);
}
