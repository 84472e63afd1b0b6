// The paths in a locker and the names of an upload's files (docs/protocol.md, section 5). Computes
// names and opens nothing.

/** The three streams of an upload, in the order in which they are sent. */
export const STREAMS = ['out', 'err', 'env'] as const;

export type StreamName = (typeof STREAMS)[number];

/** The paths of one upload's files, all beginning with `base`. */
export interface GroupPaths {
  out: string;
  err: string;
  env: string;
  /** Exists while the upload is being written. */
  lck: string;
  /** Appears last, when the other three are complete and on disk. */
  rdy: string;
}

/** The paths of the files of the upload whose path without extension is `base`. */
export function groupPaths(base: string): GroupPaths {
  return {
    out: `${base}.out`,
    err: `${base}.err`,
    env: `${base}.env`,
    lck: `${base}.lck`,
    rdy: `${base}.rdy`,
  };
}

/** The maximum number of uploads kept under one name. */
export const MAX_NUMBER = 9999;

/**
 * The base of the nth upload of one name: `NAME`, `NAME~2`, ... Names never contain `~` otherwise.
 */
export function numberedBase(base: string, number: number): string {
  return number === 1 ? base : `${base}~${number}`;
}

/** Splits the number from a name or base; undefined for one without a number. */
export function splitNumbered(name: string): { base: string; number: number } | undefined {
  // A quick test, because this is called for every name and few have a number.
  if (!name.includes('~')) return undefined;
  const [, base, number] = /^(.*[^/])~([2-9]|[1-9][0-9]{1,3})$/s.exec(name) ?? [];
  return base === undefined ? undefined : { base, number: Number(number) };
}

/**
 * Why no upload can be stored under a base: a part of its path is longer than file systems allow
 * (NAME_MAX 255, PATH_MAX 4096), including the longest extension that is ever added. Undefined when
 * it is short enough.
 */
export function findTooLong(base: string, mayHaveSuccessors: boolean): string | undefined {
  const suffix = mayHaveSuccessors ? `~${MAX_NUMBER}.out.new` : '.out';
  const path = base + suffix;
  if (path.split('/').some((segment) => Buffer.byteLength(segment) > 255)) return 'over 255 bytes';
  return Buffer.byteLength(path) > 4095 ? 'a path over 4095 bytes' : undefined;
}

/** The path of a stream until it replaces the one of an existing upload. */
export function successorPath(path: string): string {
  return `${path}.new`;
}

/** The content of a `.rdy` file: `Jid=server_1_1085355126_00723` and a newline. */
export function formatReady(jobId: string): string {
  return `Jid=${jobId}\n`;
}

/** The job id in a `.rdy` file. Throws SyntaxError. */
export function parseReady(text: string): string {
  const match = /^Jid=([\x21-\x7e]{1,255})\r?\n$/.exec(text);
  if (!match?.[1]) throw new SyntaxError('a .rdy file has one line, Jid=<job id>');
  return match[1];
}
