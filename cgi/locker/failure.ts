// Expected failures of the locker. The caller maps the kind to a status.

/** The kind of a failure, from which the caller derives a status. */
export type LockerFailureKind =
  /** The name is taken, or another process is writing an upload of that name. */
  | 'exists'
  /** No space left: bytes, inodes or quota. */
  | 'full'
  /** The file system does not allow a name or path this long. */
  | 'name'
  /** The body ended before its announced length. */
  | 'short'
  /** A system call failed, so the stored bytes cannot be trusted. */
  | 'failed';

/** Thrown when an operation on the locker fails. The message contains nothing from the request. */
export class LockerFailure extends Error {
  readonly kind: LockerFailureKind;
  constructor(kind: LockerFailureKind, message: string) {
    super(message);
    this.kind = kind;
  }
}

const FULL_CODES = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);

const KINDS: Partial<Record<string, LockerFailureKind>> = { EEXIST: 'exists', ENAMETOOLONG: 'name' };

/**
 * libuv has no name for EDQUOT, an exhausted quota: `Unknown system error -122` on Linux, -69 on
 * the BSDs.
 */
const QUOTA_ERRNOS = new Set<number | undefined>([-122, -69]);

/**
 * The failure for the error of a system call. Rethrows anything else: a bug, or a caller's own
 * error on its way out.
 */
export function failureOf(error: unknown): LockerFailure {
  if (error instanceof LockerFailure) return error;
  const { syscall, errno, code: given } = error as NodeJS.ErrnoException;
  if (given === undefined || syscall === undefined) throw error;
  const code = QUOTA_ERRNOS.has(errno) ? 'EDQUOT' : given;
  const kind = FULL_CODES.has(code) ? 'full' : (KINDS[code] ?? 'failed');
  return new LockerFailure(kind, `${syscall} failed: ${code}`);
}
