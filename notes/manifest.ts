// Manifests of programs: signed notes that bind the bytes of a program to its name, the clients it
// is for, a time and a serial number (docs/protocol.md, section 10). Both signers and verifiers use
// this file.
import { isFileName, MAX_MANIFEST_BYTES, matchesGlob } from 'webjob-protocol';
import { NoteError, parseNote, verifyNote } from './note.ts';
import { type TrustedKey, weightOf } from './trust.ts';

/** The content of a manifest. */
export interface Manifest {
  /** The name that clients ask for. */
  name: string;
  /** Globs of client ids, at least one. */
  clients: readonly string[];
  size: number;
  /** SHA-256 of the program in hexadecimal. */
  sha256: string;
  /** A client accepts no lower serial of this name than it has seen. */
  serial: number;
  /** Whole seconds. */
  notBefore: Date;
  notAfter: Date;
}

/** A manifest whose signatures are valid and reach the threshold. */
export interface SignedManifest {
  manifest: Manifest;
  /** The signed text. */
  text: string;
  signers: TrustedKey[];
}

const FIRST_LINE = 'webjob-manifest/v1';
const NUMBER = '0|[1-9][0-9]{0,14}';
const TIME = '[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z';
const TEXT = new RegExp(
  `^${FIRST_LINE}\nname (?<name>.+)\n(?<clients>(?:client [A-Za-z0-9_*?-]{1,64}\n)+)size (?<size>${NUMBER})\n` +
    `sha256 (?<sha256>[0-9a-f]{64})\nserial (?<serial>${NUMBER})\nnot-before (?<from>${TIME})\nnot-after (?<to>${TIME})\n$`,
);

/**
 * Formats the text of a manifest to be signed. Throws NoteError for what parseManifest() would
 * reject.
 */
export function formatManifest({ name, clients, size, sha256, serial, notBefore, notAfter }: Manifest): string {
  const globs = clients.map((glob) => `client ${glob}\n`).join('');
  const times = `not-before ${formatSeconds(notBefore)}\nnot-after ${formatSeconds(notAfter)}\n`;
  const text = `${FIRST_LINE}\nname ${name}\n${globs}size ${size}\nsha256 ${sha256}\nserial ${serial}\n${times}`;
  parseManifest(text);
  return text;
}

/** Parses the text of a manifest. Throws NoteError unless the text is exactly one manifest. */
export function parseManifest(text: string): Manifest {
  const found = TEXT.exec(text)?.groups;
  const { name = '', clients = '', size, sha256 = '', serial, from, to } = found ?? {};
  if (found === undefined || !isFileName(name)) throw new NoteError('not the text of a manifest');
  const [notBefore, notAfter] = [parseSeconds(from), parseSeconds(to)];
  if (notBefore >= notAfter) throw new NoteError('it ends before it begins');
  const globs = clients.trimEnd().split('\n');
  return {
    name,
    clients: globs.map((line) => line.slice('client '.length)),
    size: Number(size),
    sha256,
    serial: Number(serial),
    notBefore,
    notAfter,
  };
}

/**
 * Checks the signatures of a manifest; findMismatch() checks its content.
 *
 * @throws NoteError for bytes that are not a manifest, for a wrong signature of a trusted key, and
 * below the threshold
 */
export function openManifest(bytes: Uint8Array, trusted: readonly TrustedKey[], threshold: number): SignedManifest {
  if (bytes.length > MAX_MANIFEST_BYTES) throw new NoteError(`longer than ${MAX_MANIFEST_BYTES} bytes`);
  const note = parseNote(bytes);
  const signers = verifyNote(note, trusted);
  const weight = weightOf(signers);
  if (weight < threshold) throw new NoteError(`signed with a weight of ${weight}, but ${threshold} is required`);
  return { manifest: parseManifest(note.text), text: note.text, signers };
}

/**
 * Why a manifest is not for this program, this client if one is given, and this time; undefined
 * when it is.
 */
export function findMismatch(
  { name, clients, notBefore, notAfter }: Manifest,
  wanted: { name: string; clientId?: string; at: Date },
): string | undefined {
  if (name !== wanted.name) return `it is for ${name}, not ${wanted.name}`;
  return findOutside({ clients, notBefore, notAfter }, wanted);
}

/**
 * Why something that was signed for certain clients and times does not apply to this client, if one
 * is given, at this moment; undefined when it applies.
 */
export function findOutside(
  { clients, notBefore, notAfter }: Pick<Manifest, 'clients' | 'notBefore' | 'notAfter'>,
  { clientId, at }: { clientId?: string; at: Date },
): string | undefined {
  if (clientId !== undefined && !clients.some((glob) => matchesGlob(glob, clientId)))
    return `it is not for ${clientId}`;
  if (at < notBefore) return `it is not valid before ${formatSeconds(notBefore)}`;
  // Valid to the end of its last second, like certificates.
  return at.getTime() >= notAfter.getTime() + 1000 ? `it expired at ${formatSeconds(notAfter)}` : undefined;
}

/** `2026-11-24T06:12:40Z` */
export function formatSeconds(date: Date): string {
  return date.toISOString().replace(/\.\d+Z$/, 'Z');
}

/** Throws NoteError for what formatSeconds does not write. */
export function parseSeconds(text = ''): Date {
  const date = new Date(text);
  if (Number.isNaN(date.getTime()) || formatSeconds(date) !== text) throw new NoteError(`${text} is not a time`);
  return date;
}
