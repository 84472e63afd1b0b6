// The names that requests carry and that become parts of paths, with the patterns that make this
// safe (docs/protocol.md, section 1). All other files use these patterns and define none of their
// own.

const CLIENT_ID = '[A-Za-z0-9_-]{1,64}';
const FILE_NAME = '[A-Za-z0-9_+.:-]{1,1024}';
const SERVER_ID = '[A-Za-z0-9_.-]{1,64}';

/** The sources of the patterns, unanchored, for building larger ones. */
export const NAME_PATTERNS = { clientId: CLIENT_ID, fileName: FILE_NAME, serverId: SERVER_ID } as const;

const clientIdPattern = new RegExp(`^${CLIENT_ID}$`);
const fileNamePattern = new RegExp(`^${FILE_NAME}$`);
const jobIdPattern = /^[\x21-\x7e]{1,255}$/;

/** Whether a text is a client id: 1 to 64 letters, digits, `_` and `-`. */
export function isClientId(text: string): boolean {
  return clientIdPattern.test(text);
}

/**
 * Whether a text is the file name of a command: 1 to 1024 letters, digits and `_ + . : -`, but
 * neither `.` nor `..`.
 */
export function isFileName(text: string): boolean {
  return fileNamePattern.test(text) && text !== '.' && text !== '..';
}

/**
 * Whether a text is a job id as any server may have issued it: 1 to 255 printable characters
 * without spaces. It may contain `/`, `..` and shell metacharacters, so it is always encoded before
 * it becomes part of a path or a command.
 */
export function isJobId(text: string): boolean {
  return jobIdPattern.test(text);
}
