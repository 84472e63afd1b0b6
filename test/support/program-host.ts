// A process that runs one built program repeatedly, so that a run does not cost the start of Node.
// Each run loads the program again and has its own `process`: id, command line, environment,
// working directory, umask, standard streams, exit code and listeners. program-runs.ts starts this,
// and says which runs need a process of their own.
import { EventEmitter } from 'node:events';
import { closeSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { inspect } from 'node:util';
import { constants, Script } from 'node:vm';

export interface HostedRun {
  args: readonly string[];
  environment: Record<string, string>;
  cwd: string;
  umask: number;
  /** The process id that the run sees; no real process has it. */
  pid: number;
}

export interface HostedEnd {
  code: number;
  /** The run left something behind in the process, so no other should follow. */
  isLast: boolean;
}

type Program = (require: NodeJS.Require, process: NodeJS.Process, file: string, folder: string) => void;

const [, , programFile = '', uid, gid] = process.argv;
const program = compile(programFile);
if (uid !== undefined && gid !== undefined) becomeUser(Number(uid), Number(gid));
/** Above this size a run could be slowed down by garbage of earlier ones. */
const MOST_MEMORY = 400 * 1024 * 1024;

/** Ends a run from within one of its calls. */
const EXIT = new Error('process.exit() was called');

/**
 * Writes to the files that the host has as its own streams, where programs started by a run write
 * too.
 */
class Output extends Writable {
  readonly #descriptor: number;
  constructor(descriptor: number) {
    super();
    this.#descriptor = descriptor;
  }
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    writeFileSync(this.#descriptor, chunk);
    done();
  }
}

interface Current {
  events: EventEmitter;
  /** Reports that the run has ended. */
  end(): void;
  /** Ends it as Node ends a process for an uncaught error. */
  fail(error: unknown): void;
}
let current: Current | undefined;
/**
 * Something the run left behind has failed after its end, which could not happen in a process of
 * its own.
 */
let isSpoiled = false;
process.on('uncaughtException', (error) => {
  if (error === EXIT) return;
  if (!current) isSpoiled = true;
  else if (!current.events.emit('uncaughtException', error)) current.fail(error);
});

process.on('message', async (run: HostedRun) => {
  // Like a process, a run ends when nothing is pending; so the channel must not count during a run.
  process.channel?.unref();
  try {
    const end = await start(run);
    process.channel?.ref();
    process.send?.(end);
  } catch (error) {
    // Nothing would keep the process alive, and it would end with 0.
    writeFileSync(2, `the host of the run failed: ${inspect(error)}\n`);
    process.exit(70);
  }
});
process.on('beforeExit', () => current?.end());
process.on('disconnect', () => process.exit());

/** Not earlier, because the user may not be able to read the sources of the tests. */
function becomeUser(uid: number, gid: number): void {
  process.setgroups?.([]);
  process.setgid?.(gid);
  process.setuid?.(uid);
}

function compile(file: string): Program {
  const source = readFileSync(file, 'utf8').replace(/^#!.*/, '');
  const parameters = 'require, process, __filename, __dirname';
  const script = new Script(`(function (${parameters}) {${source}\n})`, {
    filename: file,
    importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
  });
  return script.runInThisContext() as Program;
}

async function start({ args, environment, cwd, umask, pid }: HostedRun): Promise<HostedEnd> {
  process.chdir(cwd);
  process.umask(umask);
  for (const name of Object.keys(process.env)) if (!(name in environment)) delete process.env[name];
  Object.assign(process.env, environment);
  const before = look();
  const [stdout, stderr] = [new Output(1), new Output(2)];
  const events = new EventEmitter();
  let code: number | undefined;
  let isCutOff = false;
  const ended = new Promise<void>((resolve) => {
    const fail = (error: unknown): void => {
      writeFileSync(2, `${inspect(error)}\n`);
      [code, isCutOff] = [1, true];
      resolve();
    };
    current = { events, end: resolve, fail };
  });
  const exit = (given?: number): never => {
    code = given ?? code;
    isCutOff = true;
    current?.end();
    throw EXIT;
  };
  const own = makeProcess({ stdout, stderr, events, exit, pid, argv: [process.execPath, programFile, ...args] });
  Object.defineProperty(own, 'exitCode', {
    get: () => code,
    set: (value: number) => {
      code = value;
    },
  });
  const load = createRequire(programFile);
  const ownRequire = Object.assign((name: string) => (/^(?:node:)?process$/.test(name) ? own : load(name)), load);
  try {
    program(ownRequire as NodeJS.Require, own, programFile, dirname(programFile));
  } catch (error) {
    if (error !== EXIT && !events.emit('uncaughtException', error)) current?.fail(error);
  }
  await ended;
  try {
    events.emit('exit', code ?? 0);
  } catch (error) {
    if (error !== EXIT) throw error;
  }
  current = undefined;
  closeKept(before.descriptors);
  const after = look();
  const isLast =
    isCutOff ||
    isSpoiled ||
    after.descriptors.size > before.descriptors.size ||
    after.user !== before.user ||
    process.memoryUsage.rss() > MOST_MEMORY;
  return { code: code ?? 0, isLast };
}

interface State {
  descriptors: Set<string>;
  user: string;
}

function look(): State {
  const user = [process.geteuid?.(), process.getegid?.(), process.getgroups?.()].join(' ');
  return { descriptors: listDescriptors(), user };
}

/** Without the descriptor of the directory itself while it is listed. */
function listDescriptors(): Set<string> {
  return new Set(readdirSync('/proc/self/fd').filter((fd) => readTarget(fd) !== undefined));
}

function readTarget(fd: string): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return undefined;
  }
}

/**
 * What programs leave open to their end: webjob its program, which it has removed before, and
 * webjobctl the directories of the locker. Everything else may still be closed by someone.
 */
function closeKept(before: ReadonlySet<string>): void {
  for (const fd of listDescriptors()) {
    if (before.has(fd)) continue;
    // A thread of Node, such as one that looks up a host name, may close its file meanwhile.
    const target = readTarget(fd);
    if (target === undefined) continue;
    const isDirectory = statSync(`/proc/self/fd/${fd}`, { throwIfNoEntry: false })?.isDirectory();
    if (isDirectory || / \(deleted\)$/.test(target)) closeIfOpen(Number(fd));
  }
}

function closeIfOpen(descriptor: number): void {
  try {
    closeSync(descriptor);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EBADF') throw error;
  }
}

interface Own {
  stdout: Output;
  stderr: Output;
  events: EventEmitter;
  exit: (code?: number) => never;
  pid: number;
  argv: string[];
}

/** The `process` of a run: listeners and streams are its own, everything else is the host's. */
function makeProcess({ events, exit, pid, argv, ...streams }: Own): NodeJS.Process {
  const own = Object.create(process) as NodeJS.Process;
  for (const name of [
    'on',
    'once',
    'off',
    'addListener',
    'removeListener',
    'removeAllListeners',
    'listenerCount',
    'listeners',
  ])
    Object.defineProperty(own, name, {
      value: (...given: unknown[]) => {
        const found = (events[name as 'on'] as (...all: unknown[]) => unknown).apply(events, given);
        return found === events ? own : found;
      },
    });
  const stdin = Readable.from([]);
  for (const [name, value] of Object.entries({ ...streams, stdin, pid, argv, exit }))
    Object.defineProperty(own, name, { value });
  return own;
}
