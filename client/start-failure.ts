// Explains why the system does not start a program, with a remedy, for the run record and the
// message. The error of execve(2) says little: ENOENT often means the interpreter of a script,
// EACCES the mount option noexec.
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { machine } from 'node:os';
import { basename } from 'node:path';
import { printable } from './status.ts';

/** The program that was not started. */
interface Program {
  path: string;
  fd: number;
}

const HEAD_BYTES = 4096;

/** Explains an error, for example `its interpreter /bin/zsh does not exist`. */
export function explainStartFailure({ code, message }: NodeJS.ErrnoException, program: Program): string {
  const head = readHead(program.fd);
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
    case 'ELOOP':
      return explainMissing(code, program, head);
    case 'EACCES':
      return explainDenied(program, head);
    case 'ENOEXEC':
      return explainFormat(program.fd);
    case 'EFTYPE':
    case 'UNKNOWN':
      return process.platform === 'win32' ? `it is not a program for this Windows (${code})` : code;
    case 'E2BIG':
      return 'its arguments and the environment are larger than this system accepts (E2BIG)';
    case 'ETXTBSY':
      return 'another process has it open for writing (ETXTBSY)';
    case 'EPERM':
      return 'a security policy of this system forbids it (EPERM)';
    case 'EAGAIN':
      return 'this user cannot start another process (EAGAIN)';
    case 'ENOMEM':
      return 'there is not enough memory (ENOMEM)';
    case 'EMFILE':
    case 'ENFILE':
      return `too many files are open (${code})`;
    default:
      return code ?? message;
  }
}

function explainMissing(code: string, { path }: Program, head: Buffer): string {
  const interpreter = findInterpreter(head);
  if (interpreter === undefined) {
    if (!existsSync(path)) return 'it was removed before it was started';
    const loader = /\/[\w./+-]*\bld[\w.-]*\.so[\w.-]*(?=\0)/.exec(head.toString('latin1'))?.[0];
    return loader === undefined
      ? `what it needs to start does not exist (${code})`
      : `its loader ${loader} does not exist`;
  }
  if (!interpreter.endsWith('\r')) return `its interpreter ${printable(interpreter)} does not exist`;
  const name = basename(path);
  const remedy = `sed -i 's/\\r$//' ${name}`;
  return `its first line ends in CR LF, so its interpreter is "${printable(interpreter.slice(0, -1))}\\r"; on the server: ${remedy}`;
}

function explainDenied({ path, fd }: Program, head: Buffer): string {
  const mount = findNoexecMount(fd);
  if (mount !== undefined)
    return `TempDirectory is on ${mount}, mounted noexec: set TempDirectory to a directory elsewhere (EACCES)`;
  const interpreter = findInterpreter(head);
  if (interpreter !== undefined) return `its interpreter ${printable(interpreter)} may not be executed (EACCES)`;
  return `${path} may not be executed (EACCES)`;
}

/**
 * The mount point of an open file if it is mounted noexec; undefined otherwise, or without /proc.
 */
function findNoexecMount(fd: number): string | undefined {
  if (process.platform !== 'linux') return undefined;
  try {
    const id = /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1];
    for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
      const [mountId, , , , point = '', options = ''] = line.split(' ');
      if (mountId === id) return options.split(',').includes('noexec') ? point : undefined;
    }
  } catch {
    // This system has no /proc.
  }
  return undefined;
}

/**
 * The interpreter after `#!` as the kernel parses it, including a trailing CR; undefined for a file
 * that is not a script.
 */
function findInterpreter(head: Buffer): string | undefined {
  return /^#![ \t]*([^ \t\n\0]+)/.exec(head.toString('latin1'))?.[1];
}

/**
 * Whether the kernel rejects a file as a foreign binary. execvp(3) would then pass the file to
 * /bin/sh, which would interpret its bytes as commands. As in shells, a NUL in the first line
 * distinguishes a binary from a script. False when unknown.
 */
export function isForeign(fd: number): boolean {
  if (process.platform !== 'linux') return false;
  const head = readHead(fd);
  const end = head.indexOf('\n');
  const isBinary = head.subarray(0, end < 0 ? head.length : end).includes(0) && findInterpreter(head) === undefined;
  return isBinary && !isOfThisMachine(head) && !isRegistered(head);
}

function explainFormat(fd: number): string {
  const head = readHead(fd);
  if (!isElf(head)) return 'it is neither a script with #! nor a program for this machine (ENOEXEC)';
  return `it is for another machine: ELF machine ${machineOf(head)}, and this is ${machine()} (ENOEXEC)`;
}

const isElf = (head: Buffer): boolean => head.length >= 20 && head.readUInt32BE(0) === 0x7f454c46;

/** Reads e_machine from an ELF header, in the byte order that the header declares. */
const machineOf = (head: Buffer): number => (head[5] === 2 ? head.readUInt16BE(18) : head.readUInt16LE(18));

/** Pairs of machine types that the same kernel runs: x86, ARM, PowerPC, SPARC. */
const FAMILIES = [
  [3, 62],
  [40, 183],
  [20, 21],
  [2, 18, 43],
];

function isOfThisMachine(head: Buffer): boolean {
  const own = readOwnHead();
  if (!isElf(head) || !isElf(own)) return isElf(head) && !isElf(own);
  const family = FAMILIES.find((machines) => machines.includes(machineOf(own))) ?? [machineOf(own)];
  return family.includes(machineOf(head));
}

function readOwnHead(): Buffer {
  const fd = openSync('/proc/self/exe', 'r');
  try {
    return readHead(fd);
  } finally {
    closeSync(fd);
  }
}

const REGISTRY = '/proc/sys/fs/binfmt_misc';

/** Whether an emulator is registered for the binary (binfmt_misc). */
function isRegistered(head: Buffer): boolean {
  try {
    return readdirSync(REGISTRY).some((name) => {
      const text = ['register', 'status'].includes(name) ? '' : readFileSync(`${REGISTRY}/${name}`, 'latin1');
      const find = (key: string): string => new RegExp(`^${key} (\\S+)$`, 'm').exec(text)?.[1] ?? '';
      const magic = Buffer.from(find('magic'), 'hex');
      const mask = find('mask') === '' ? Buffer.alloc(magic.length, 0xff) : Buffer.from(find('mask'), 'hex');
      const given = head.subarray(Number(find('offset')));
      return (
        magic.length > 0 &&
        text.startsWith('enabled') &&
        magic.every((byte, i) => byte === ((given[i] ?? 0) & (mask[i] ?? 0)))
      );
    });
  } catch {
    return false;
  }
}

function readHead(fd: number): Buffer {
  const buffer = Buffer.alloc(HEAD_BYTES);
  return buffer.subarray(0, readSync(fd, buffer, 0, HEAD_BYTES, 0));
}
