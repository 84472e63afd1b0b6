// Determines what the web user can do with a file or directory by doing it: mode bits do not show
// mounts, immutable files, full disks, quotas and access control lists.
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  realpathSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { errorCode } from '../../cli/files.ts';
import { quote } from '../../cli/shell.ts';
import { asUser, canBecome, findClosedFolder, mayAccess, type User } from '../site/users.ts';

/** More than a file system stores inside of an inode or a directory. */
const FILL_BYTES = 65_536;

/** Each deed throws the error of the system call that fails, and leaves nothing behind. */
const DEEDS = {
  fill: (folder: string): void => {
    const path = join(folder, `.webjobctl-configtest.${process.pid}.${randomBytes(6).toString('hex')}`);
    const fd = openSync(path, 'wx', 0o600);
    try {
      unlinkSync(path);
      writeFileSync(fd, Buffer.alloc(FILL_BYTES));
      // Some file systems report only here that they are full.
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  },
  append: (file: string): void =>
    closeSync(openSync(file, constants.O_WRONLY | constants.O_APPEND | constants.O_NONBLOCK)),
  read: (file: string): void => {
    const fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      readSync(fd, Buffer.alloc(1));
    } finally {
      closeSync(fd);
    }
  },
  list: (folder: string): void => {
    readdirSync(folder);
    DEEDS.enter(folder);
  },
  enter: (folder: string): void => void statSync(`${folder}/.`),
} as const;

export type Deed = keyof typeof DEEDS;

const BITS = { fill: 'write', append: 'write', read: 'read', list: 'read', enter: 'enter' } as const;

/**
 * Tries a deed as a user. Returns the error code with which it fails; undefined when it succeeds.
 * When this process cannot become that user, the mode bits decide.
 */
export function attempt(user: User, path: string, deed: Deed): string | undefined {
  try {
    if (!canBecome(user)) return mayAccess(user, path, BITS[deed]) ? undefined : 'EACCES';
    asUser(user, () => DEEDS[deed](path));
    return undefined;
  } catch (error) {
    return errorCode(error);
  }
}

const REASONS: Record<string, string> = {
  EROFS: 'the file system is read-only',
  EPERM: 'it is immutable or append-only',
  ENOSPC: 'no space is left',
  EDQUOT: 'the quota is used up',
};

/** `: the file system is read-only`; empty for the usual reason, the mode bits. */
export function describeCode(code: string): string {
  return code === 'EACCES' ? '' : `: ${REASONS[code] ?? code}`;
}

/** A command that removes the cause of an error; undefined when the cause is the mode bits. */
export function findMend(code: string, path: string): string | undefined {
  if (code === 'EROFS') return formatRemount(path, 'ro', 'rw');
  if (code === 'EPERM') return `chattr -i -a ${quote(path)}`;
  if (code === 'ENOSPC') return `df -h ${quote(path)}  # and make room`;
  return code === 'EDQUOT'
    ? `repquota -s ${quote(findMount(path)?.place ?? path)}  # and raise the quota of the web user`
    : undefined;
}

/** A command that gives the user access to a path, and then applies a change to it. */
export function formatOpening(user: User, path: string, change: string): string {
  const closed = findClosedFolder(user, path);
  if (closed !== undefined) return `chmod a+x ${quote(closed)}`;
  return change;
}

/**
 * `mount -o remount,rw /srv`. A bind mount has its own option, separate from that of the file
 * system.
 */
export function formatRemount(path: string, from: string, to: string): string {
  const mount = findMount(path);
  if (mount === undefined) return `mount -o remount,${to} the file system of ${path}`;
  const isOwn = mount.options.includes(from) && !mount.superOptions.includes(from);
  return `mount -o remount,${isOwn ? 'bind,' : ''}${to} ${quote(mount.place)}`;
}

interface Mount {
  place: string;
  options: string[];
  superOptions: string[];
}

/** The mount of a path: the last one that contains it (proc_pid_mountinfo(5)). */
export function findMount(path: string): Mount | undefined {
  try {
    const real = realpathSync(path);
    const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .map((line) => line.split(' '))
      .filter((fields) => fields.length > 6)
      .map((fields): Mount => {
        const place = (fields[4] ?? '').replace(/\\(\d{3})/g, (_, digits) =>
          String.fromCharCode(Number.parseInt(digits, 8)),
        );
        return { place, options: (fields[5] ?? '').split(','), superOptions: (fields.at(-1) ?? '').split(',') };
      })
      .filter(({ place }) => place === '/' || real === place || real.startsWith(`${place}/`));
    const longest = Math.max(...mounts.map(({ place }) => place.length));
    return mounts.findLast(({ place }) => place.length === longest);
  } catch {
    return undefined;
  }
}
