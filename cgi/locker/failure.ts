// What can go wrong with the locker that is nobody's bug. The caller turns the kind into a status.

/** What a caller makes a status of. */
export type LockerFailureKind =
  /** The name is taken, or another upload is writing it. */
  | 'exists'
  /** No room left: bytes, inodes or quota. */
  | 'full'
  /** The file system takes no name, or no path, so long. */
  | 'name'
  /** The body ended before its announced length. */
  | 'short'
  /** A system call failed: the stored bytes cannot be vouched for. */
  | 'failed';

/** Thrown where the locker cannot do what it was asked; the message names no byte of a request. */
export class LockerFailure extends Error {
  readonly kind: LockerFailureKind;
  constructor(kind: LockerFailureKind, message: string) {
    super(message);
    this.kind = kind;
  }
}

const FULL_CODES = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);

const KINDS: Partial<Record<string, LockerFailureKind>> = { EEXIST: 'exists', ENAMETOOLONG: 'name' };

/** libuv has no name for EDQUOT, a quota that is used up: `Unknown system error -122` on Linux, -69 on the BSDs. */
const QUOTA_ERRNOS = new Set<number | undefined>([-122, -69]);

/** The failure that a system call's error means. Throws what is neither: a bug, or a caller's own error on its way out. */
export function failureOf(error: unknown): LockerFailure {
  if (error instanceof LockerFailure) return error;
  const { syscall, errno, code: given } = error as NodeJS.ErrnoException;
  if (given === undefined || syscall === undefined) throw error;
  const code = QUOTA_ERRNOS.has(errno) ? 'EDQUOT' : given;
  const kind = FULL_CODES.has(code) ? 'full' : (KINDS[code] ?? 'failed');
  return new LockerFailure(kind, `${syscall} failed: ${code}`);
}
