// The commands that take part in a request: a GetHook makes the content that a GET serves, a
// PutHook inspects an upload before it is announced. Both run to their end within the request, in a
// process group of their own that does not outlive it (docs/protocol.md, section 4).
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { type GroupPaths, STREAMS } from 'webjob-locker';
import { type Exchange, tokenFacts } from './exchange.ts';
import { logHook, logProblem } from './log.ts';
import { Refusal } from './refusal.ts';
import { readManifest, readSignature } from './signature.ts';
import { expandCommand } from './tokens.ts';

/** The environment of the commands that the server runs. */
export const COMMAND_ENVIRONMENT = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' };

/**
 * The maximum size of a hook's output, not counting its payload; a hook that writes more is killed.
 */
const MAX_DIVERTED_BYTES = 64 * 1024;
/** The unit of `ulimit -f` (POSIX). */
const BLOCK_BYTES = 512;
const LOOK_MS = 2;

/**
 * Prefixed to every command line: kills the group when this process is gone. httpd kills a script
 * that keeps it waiting for too long, and then nothing would enforce the time limit. The outer
 * parentheses hide this process from a `wait` in the command line.
 */
const WATCH = '( (while kill -0 $PPID; do sleep 1; done; kill -9 0) >&- 2>&- & )\n';

/**
 * Runs a command whose stdout and stderr are pipes, because a command may reopen /dev/stdout, which
 * truncates a file and fails on a socket. One `cat` for each pipe copies the bytes to the file on
 * descriptor 1 or 2 of this shell. Arguments: the command line, a mark, and the limits of stdout
 * and stderr, in blocks.
 *
 * The mark follows the last byte of the command itself: its background processes may hold the pipes
 * forever, and nothing waits for them. A `cat` that cannot write reports `out` or `err` on
 * descriptor 3. The exit status arrives on descriptor 6, which only the shell around the command
 * holds. Redirections are made by exec, because a shell keeps a copy of each descriptor that it
 * redirects for a group of commands.
 */
export const PIPED = `
exec 4>&1 5>&2
status=$( { {
  {
    exec 2>/dev/null
    ( exec 2>&7 3>&- 4>&- 5>&- 6>&- 7>&-
      command=$1; shift $#; eval "$command" )
    echo $? >&6
    exec 6>&-
    trap '' PIPE
    printf %s "$2"
    printf %s "$2" >&7
  } | { exec 8<&0 >&4 2>/dev/null 6>&- 7>&-; { (ulimit -f "$3" && exec cat <&8) || echo out >&3; } & }
} 7>&1 | { exec 8<&0 >&5 2>/dev/null 6>&-; { (ulimit -f "$4" && exec cat <&8) || echo err >&3; } & } } 6>&1 )
exit "\${status:-126}"`;

/**
 * A file without a name that holds the bytes of a stream, opened once for writing and once for
 * reading.
 */
interface Spool {
  reader: number;
  writer: number;
  limit: number;
  /** The message for a hook that writes more than the limit. */
  excess: string;
}

/** The output of a GetHook. */
interface Payload {
  file: { fd: number; size: number };
  signature: string | undefined;
  manifest: string | undefined;
}

/**
 * Runs the GetHook and returns its stdout, an open file without a name, and the signature and
 * manifest it made. `file` is the path of the command that it may transform, empty when there is
 * none. Throws Refusal 551, 459 without a required signature, and 550 when SpoolDirectory cannot be
 * used.
 */
export function makePayload(exchange: Exchange, file: string): Payload {
  const { spoolDirectory, getHookCommandLine, getHookOutputLimit, dsvRequireSignatures } = exchange.settings;
  const made = (['sig', 'manifest'] as const).filter((token) => getHookCommandLine.includes(`%${token}`));
  if (dsvRequireSignatures && !made.includes('sig')) throw new Refusal(459, 'GetHookCommandLine has no %sig');
  const out = openSpool(spoolDirectory, getHookOutputLimit, 'printed more than GetHookOutputLimit');
  const paths: { sig?: string; manifest?: string } = {};
  if (made.length > 0) removeAbandoned(spoolDirectory);
  try {
    for (const token of made) paths[token] = makeEmptyFile(`${spoolPath(spoolDirectory)}.${token}`);
    const command = expandCommand(getHookCommandLine, tokenFacts(exchange), { file, ...paths });
    // Limits the other files that the hook writes; its output is limited by the `cat` that keeps
    // it.
    const limited = `ulimit -f ${blocksOf(getHookOutputLimit)} || exit 126\n${command}`;
    const size = runHook(exchange, 'GetHook', limited, out);
    const signature = takeMade('signature', paths.sig, readSignature);
    if (dsvRequireSignatures && signature === undefined) throw new Refusal(459, 'GetHook made no signature');
    const manifest = takeMade('manifest', paths.manifest, readManifest);
    return { file: { fd: out.reader, size }, signature, manifest };
  } catch (error) {
    closeSync(out.reader);
    throw error;
  } finally {
    closeSync(out.writer);
    for (const path of Object.values(paths)) removeFile(path);
  }
}

/**
 * Opens a spool. It has two descriptors, because the writer's offset belongs to the writing
 * process.
 */
function openSpool(folder: string, limit: number, excess: string): Spool {
  const path = spoolPath(folder);
  try {
    const writer = openSync(path, 'wx', 0o600);
    const reader = openSync(path, 'r');
    unlinkSync(path);
    return { reader, writer, limit, excess };
  } catch (error) {
    throw new Refusal(550, `SpoolDirectory: ${(error as NodeJS.ErrnoException).code}`);
  }
}

function spoolPath(folder: string): string {
  return `${folder}/hook-${process.pid}-${process.hrtime.bigint()}`;
}

/**
 * Converts a limit to blocks and adds one, so that excess output can be detected and the mark fits
 * after the limit.
 */
function blocksOf(limit: number): number {
  return Math.ceil(limit / BLOCK_BYTES) + 1;
}

function makeEmptyFile(path: string): string {
  try {
    closeSync(openSync(path, 'wx', 0o600));
    return path;
  } catch (error) {
    throw new Refusal(550, `SpoolDirectory: ${(error as NodeJS.ErrnoException).code}`);
  }
}

/**
 * Reads a file that a hook wrote. Returns undefined, with a message in the error log unless the
 * file is empty, when the content is invalid or the hook removed the file.
 */
function takeMade(what: string, path: string | undefined, read: (fd: number) => string): string | undefined {
  if (path === undefined) return undefined;
  try {
    const { size } = statSync(path);
    return size === 0 ? undefined : read(openSync(path, 'r'));
  } catch (error) {
    logProblem(`${what} of GetHook: ${(error as Error).message}`);
    return undefined;
  }
}

/**
 * Older files of hooks belong to no running request, because time limits are at most 999 seconds.
 */
const ABANDONED_AFTER_MS = 3600 * 1000;

/** Removes files that killed requests have left. */
function removeAbandoned(folder: string): void {
  try {
    for (const name of readdirSync(folder)) {
      const path = `${folder}/${name}`;
      if (/^hook-\d+-\d+(?:\.sig|\.manifest)?$/.test(name) && Date.now() - lstatSync(path).mtimeMs > ABANDONED_AFTER_MS)
        removeFile(path);
    }
  } catch {
    // Another request is removing the file, or the next one will.
  }
}

/** Removes a file, even when a hook has made it a directory. */
function removeFile(path: string): void {
  try {
    rmSync(path, { force: true, recursive: true });
  } catch {
    // Files that cannot be removed stay.
  }
}

/**
 * Runs the PutHook on the complete files of an upload, and syncs the files that it left.
 * Throws Refusal 551, also when a file is gone or no longer regular, and the error of an fsync.
 */
export function inspectUpload(exchange: Exchange, paths: GroupPaths): void {
  runHook(exchange, 'PutHook', expandCommand(exchange.settings.putHookCommandLine, tokenFacts(exchange), paths));
  for (const stream of STREAMS) {
    const fd = openLeft(paths[stream], stream);
    try {
      if (!fstatSync(fd).isFile()) throw new Refusal(551, `PutHook left no regular file as .${stream}`);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  }
}

/** Opens a file without following a link or blocking on a FIFO. Throws Refusal 551. */
function openLeft(path: string, stream: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    throw new Refusal(551, `PutHook left no regular file as .${stream}: ${(error as NodeJS.ErrnoException).code}`);
  }
}

/**
 * Runs a hook in a process group of its own, so that no process it started outlives it. `payload`
 * receives the stdout of a GetHook; returns its size in bytes.
 */
function runHook(exchange: Exchange, name: 'GetHook' | 'PutHook', command: string, payload?: Spool): number {
  const { settings } = exchange;
  const key = name === 'GetHook' ? 'getHook' : 'putHook';
  const folder = name === 'GetHook' ? settings.spoolDirectory : settings.incomingDirectory;
  const spools: Spool[] = [];
  const open = (limit: number): Spool => {
    const spool = openSpool(folder, limit, `printed more than ${limit} bytes`);
    spools.push(spool);
    return spool;
  };
  try {
    const isLogged = settings[`${key}LogDivertedOutput`];
    const out = payload ?? (isLogged ? open(MAX_DIVERTED_BYTES) : undefined);
    const err = isLogged ? open(MAX_DIVERTED_BYTES) : undefined;
    const limits = { seconds: settings[`${key}TimeLimit`], status: settings[`${key}Status`] };
    const ended = out
      ? runPiped(command, limits.seconds, out, err, reserveNotes(name, open(0)))
      : runPlain(command, limits.seconds);
    if (isLogged) {
      if (out && !payload) logSaid(exchange, name, ended.pid, 'out', out, ended.outSize);
      if (err) logSaid(exchange, name, ended.pid, 'err', err, ended.errSize);
    }
    const failure = describeFailure(ended, limits.status, limits.seconds);
    logHook(exchange, name, ended.pid, String(signalOf(ended) ?? ended.status), failure ?? 'Success');
    if (failure !== undefined) throw new Refusal(551, `${name} ${failure}`);
    return ended.outSize;
  } finally {
    for (const { reader, writer } of spools) for (const fd of [reader, writer]) closeSync(fd);
  }
}

/**
 * Allocates space for the shell's note about a `cat` that cannot write, because on a full disk the
 * note would be lost. The shell writes from the beginning of the file. Throws Refusal 551.
 */
function reserveNotes(name: string, notes: Spool): Spool {
  try {
    writeSync(notes.writer, '\n'.repeat('out\nerr\n'.length), 0);
    return notes;
  } catch (error) {
    throw new Refusal(
      551,
      `${name} was not run: ${(error as NodeJS.ErrnoException).code} in the directory of its output`,
    );
  }
}

interface Ended {
  pid: number;
  status: number | null;
  signal: string | null;
  error?: NodeJS.ErrnoException | undefined;
  /** The number of bytes that the command itself wrote. */
  outSize: number;
  errSize: number;
  /** The problem with the hook's output files. */
  problem?: string | undefined;
}

function spawnShell(script: string, args: string[], seconds: number, stdio: ('ignore' | number)[]) {
  const { spawnSync } = process.getBuiltinModule('node:child_process');
  return spawnSync('/bin/sh', ['-c', WATCH + script, 'sh', ...args], {
    ...{ env: COMMAND_ENVIRONMENT, cwd: '/', detached: true, stdio: ['ignore', ...stdio] },
    ...{ timeout: seconds * 1000, killSignal: 'SIGKILL' },
  });
}

function runPlain(command: string, seconds: number): Ended {
  const ended = spawnShell(command, [], seconds, ['ignore', 'ignore']);
  endGroup(ended.pid);
  return { ...ended, outSize: 0, errSize: 0 };
}

function runPiped(command: string, seconds: number, out: Spool, err: Spool | undefined, notes: Spool): Ended {
  const deadline = performance.now() + seconds * 1000;
  const mark = `${process.pid} ${process.hrtime.bigint()} ${Math.random()} ${Math.random()}`;
  const blocks = [out, err ?? out].map(({ limit }) => String(blocksOf(limit)));
  const stdio = [out.writer, err?.writer ?? ('ignore' as const), notes.writer];
  const ended = spawnShell(PIPED, [command, mark, ...blocks], seconds, stdio);
  const find = (spool: Spool | undefined, name: string): { size: number; problem?: string } =>
    !spool
      ? { size: 0 }
      : ended.status === null
        ? { size: sizeSoFar(spool, mark) }
        : awaitMark(spool, mark, name, notes, deadline);
  try {
    const [said, complained] = [find(out, 'out'), find(err, 'err')];
    return { ...ended, outSize: said.size, errSize: complained.size, problem: said.problem ?? complained.problem };
  } finally {
    endGroup(ended.pid);
  }
}

/** The number of bytes that a killed command wrote before it ended. */
function sizeSoFar({ reader, limit }: Spool, mark: string): number {
  const { size } = fstatSync(reader);
  const at = findText(reader, mark, 0, size);
  return Math.min(at < 0 ? size : at, limit);
}

/** Waits for the mark. Returns the number of bytes before it, or why it did not arrive. */
function awaitMark(
  { reader, limit, excess }: Spool,
  mark: string,
  name: string,
  notes: Spool,
  deadline: number,
): { size: number; problem?: string } {
  for (let searched = 0; ; ) {
    const hasFailed = readText(notes.reader, fstatSync(notes.reader).size).includes(name);
    const { size } = fstatSync(reader);
    const at = findText(reader, mark, searched, size);
    if (at >= 0) return at > limit ? { size: limit, problem: excess } : { size: at };
    if (hasFailed && size > limit) return { size: limit, problem: excess };
    if (hasFailed)
      return { size, problem: 'printed output that could not be stored: no space for the file, or no access to it' };
    if (performance.now() > deadline + 1000) return { size, problem: 'printed output that did not arrive in time' };
    searched = Math.max(0, size - mark.length);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOOK_MS);
  }
}

/** The offset of a text between two offsets of a file; -1 when it is absent. */
function findText(fd: number, text: string, from: number, to: number): number {
  const buffer = Buffer.allocUnsafe(256 * 1024);
  for (let at = from; to - at >= text.length; at += buffer.length - text.length) {
    const count = readSync(fd, buffer, 0, Math.min(buffer.length, to - at), at);
    const found = buffer.subarray(0, count).indexOf(text);
    if (found >= 0) return at + found;
  }
  return -1;
}

function readText(fd: number, size: number): string {
  const buffer = Buffer.alloc(size);
  return buffer.toString('utf8', 0, size > 0 ? readSync(fd, buffer, 0, size, 0) : 0);
}

function logSaid(
  exchange: Exchange,
  name: 'GetHook' | 'PutHook',
  pid: number,
  event: string,
  { reader }: Spool,
  size: number,
): void {
  for (const line of readText(reader, size).split('\n').filter(Boolean)) logHook(exchange, name, pid, event, line);
}

function describeFailure(ended: Ended, expected: number, seconds: number): string | undefined {
  const { code } = ended.error ?? {};
  if (code === 'ETIMEDOUT') return `took longer than ${seconds} seconds`;
  if (code !== undefined) return `could not be started: ${code}`;
  if (ended.problem !== undefined) return ended.problem;
  if (ended.signal === null && ended.status === expected) return undefined;
  const signal = signalOf(ended);
  return signal ? `was ended by ${signal}` : `exited with ${ended.status} instead of ${expected}`;
}

/** The signal that ended a command, also when a shell reported it as 128 plus its number. */
function signalOf({ status, signal }: Ended): string | undefined {
  if (signal !== null) return signal;
  if (status === null || status <= 128) return undefined;
  const { signals } = process.getBuiltinModule('node:os').constants;
  return Object.entries(signals).find(([, number]) => number === status - 128)?.[0];
}

function endGroup(pid: number): void {
  try {
    if (pid > 0) process.kill(-pid, 'SIGKILL');
  } catch {
    // No process of the group is left.
  }
}
