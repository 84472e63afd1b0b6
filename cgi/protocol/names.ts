// The names that travel on the wire and become parts of paths, and the patterns that make them safe there
// (docs/protocol.md, section 1). Every other file asks here; none has a pattern of its own.

const CLIENT_ID = '[A-Za-z0-9_-]{1,64}';
const FILE_NAME = '[A-Za-z0-9_+.:-]{1,1024}';
const SERVER_ID = '[A-Za-z0-9_.-]{1,64}';

/** Sources of the patterns, unanchored, for building larger ones. */
export const NAME_PATTERNS = { clientId: CLIENT_ID, fileName: FILE_NAME, serverId: SERVER_ID } as const;

const clientIdPattern = new RegExp(`^${CLIENT_ID}$`);
const fileNamePattern = new RegExp(`^${FILE_NAME}$`);
const jobIdPattern = /^[\x21-\x7e]{1,255}$/;

/** A client id: 1 to 64 letters, digits, `_` and `-`. */
export function isClientId(text: string): boolean {
  return clientIdPattern.test(text);
}

/** A command's file name: 1 to 1024 letters, digits and `_ + . : -`, and neither `.` nor `..`. */
export function isFileName(text: string): boolean {
  return fileNamePattern.test(text) && text !== '.' && text !== '..';
}

/**
 * A job id as any server may have issued it: 1 to 255 printable characters without blanks. It can hold `/`, `..` and
 * shell metacharacters, so it is never used in a path or a command before it is encoded.
 */
export function isJobId(text: string): boolean {
  return jobIdPattern.test(text);
}
