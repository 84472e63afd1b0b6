// The query strings of GET and PUT (docs/protocol.md, section 1), parsed by the server and
// formatted by the client. The whole query is decoded first and then matched as a whole; no field
// is ever looked up in a half-parsed query.
import { isFileName, NAME_PATTERNS } from './names.ts';

/** The output of a `linktest` is read and discarded, that of a `snapshot` is stored. */
export type RunType = 'snapshot' | 'linktest';

/** The decoded fields of a GET. */
export interface GetQuery {
  version: string;
  system: string;
  clientId: string;
  fileName: string;
}

/** The decoded fields of a PUT. */
export interface PutQuery extends GetQuery {
  runType: RunType;
  /**
   * The size of each stream in bytes. May exceed Number.MAX_SAFE_INTEGER, since 20 digits are
   * allowed; such a sum never equals a length.
   */
  outLength: number;
  errLength: number;
  envLength: number;
}

/**
 * A query that does not match. `field` is the first field at which it differs. Never contains bytes
 * of the query.
 */
export class QueryError extends Error {
  readonly field: string;
  constructor(field: string) {
    super(`${field} is missing, out of order or not allowed`);
    this.field = field;
  }
}

/** The name and pattern of every field, in the required order. */
const GET_FIELDS: readonly (readonly [string, string])[] = [
  ['VERSION', 'webjob[A-Za-z0-9 ().,_-]{0,64}'],
  ['SYSTEM', '[A-Za-z0-9 .,()_:+/~#-]{1,255}'],
  ['CLIENTID', NAME_PATTERNS.clientId],
  ['FILENAME', NAME_PATTERNS.fileName],
];
const PUT_FIELDS: readonly (readonly [string, string])[] = [
  ...GET_FIELDS,
  ['RUNTYPE', 'snapshot|linktest'],
  ['STDOUT_LENGTH', '[0-9]{1,20}'],
  ['STDERR_LENGTH', '[0-9]{1,20}'],
  ['STDENV_LENGTH', '[0-9]{1,20}'],
];

/** Parses a raw GET query. Throws QueryError. */
export function parseGetQuery(raw: string): GetQuery {
  const [version = '', system = '', clientId = '', fileName = ''] = matchFields(raw, GET_FIELDS);
  return { version, system, clientId, fileName };
}

/** Parses a raw PUT query. Throws QueryError. */
export function parsePutQuery(raw: string): PutQuery {
  const [version = '', system = '', clientId = '', fileName = '', runType, out, err, env] = matchFields(
    raw,
    PUT_FIELDS,
  );
  return {
    version,
    system,
    clientId,
    fileName,
    runType: runType === 'linktest' ? 'linktest' : 'snapshot',
    outLength: Number(out),
    errLength: Number(err),
    envLength: Number(env),
  };
}

/**
 * The three lengths of a PUT query digit for digit, because a number may not represent them. The
 * query must have been parsed successfully.
 */
export function announcedLengths(raw: string): Record<'out' | 'err' | 'env', string> {
  const [, , , , , out = '', err = '', env = ''] = matchFields(raw, PUT_FIELDS);
  return { out, err, env };
}

/**
 * Formats the query of a GET, escaped as C clients escape it. The fields must match their patterns.
 */
export function formatGetQuery(query: GetQuery): string {
  return (
    `VERSION=${escapeValue(query.version)}&SYSTEM=${escapeValue(query.system)}` +
    `&CLIENTID=${escapeValue(query.clientId)}&FILENAME=${escapeValue(query.fileName)}`
  );
}

/** Formats the query of a PUT. Lengths are whole numbers of bytes. */
export function formatPutQuery(query: PutQuery): string {
  return (
    `${formatGetQuery(query)}&RUNTYPE=${query.runType}&STDOUT_LENGTH=${query.outLength}` +
    `&STDERR_LENGTH=${query.errLength}&STDENV_LENGTH=${query.envLength}`
  );
}

/**
 * Decodes `+` to a space and `%HH` to a byte. Each byte becomes the character with its number, so
 * that no sequence is decoded twice.
 */
function decodeQuery(raw: string): string {
  return raw
    .replaceAll('+', ' ')
    .replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

/**
 * Letters, digits and `_ . - / \` stay, a space becomes `+`, everything else `%` and two lower-case
 * hex digits.
 */
function escapeValue(value: string): string {
  return value.replace(/[^A-Za-z0-9_.\-/\\]/g, (character) =>
    character === ' ' ? '+' : `%${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}

/**
 * Matches the fields with a pattern that grows by one field at a time, so that the first field that
 * does not match is known.
 */
function matchFields(raw: string, fields: readonly (readonly [string, string])[]): string[] {
  const decoded = decodeQuery(raw);
  let pattern = '^';
  let values: string[] = [];
  for (const [name, allowed] of fields) {
    pattern += `${name}=(${allowed})${name === fields.at(-1)?.[0] ? '$' : '(?:&|$)'}`;
    const match = new RegExp(pattern).exec(decoded);
    if (!match || (name === 'FILENAME' && !isFileName(match[4] ?? ''))) throw new QueryError(name);
    values = match.slice(1);
  }
  return values;
}
