// A persistent process (FastCGI): its command line, where it listens, its workers, and when it
// ends. The program decides what it serves.
import { parseArgs } from 'node:util';
import {
  findPassedSocket,
  joinPrimary,
  type Listening,
  type ListeningPlace,
  listenAt,
  type Membership,
  parseListeningPlace,
  type Responder,
  startPrimary,
} from 'node-cgi-compat/responder';

/** A persistent program. */
export interface StayingProgram {
  openResponder(): Responder;
  /** Writes a message for the administrator to stderr. */
  logProblem(message: string): void;
}

interface Options {
  place: ListeningPlace;
  processes: number;
  /** Seconds without a request after which the process ends; 0 for never. */
  idleSeconds: number;
  /**
   * How long a process that has left its socket waits for late clients; every client restarts the
   * wait.
   */
  quietMilliseconds: number;
}

/** The wait for late clients when no other process holds the listening socket. */
const QUIET_MS = 250;
/**
 * The longest wait for late clients on a port, which cannot be left as a path can: new clients
 * would keep the process from ending.
 */
const PORT_LIMIT_MS = 1_000;
const LOOK_MS = 1_000;

/**
 * Serves until it is told to end. Reports problems on stderr, and exits with 1 when it cannot serve
 * at all.
 */
export function stay(program: StayingProgram): void {
  const fail = (error: Error): void => {
    program.logProblem(`error: ${error.message}`);
    process.exitCode = 1;
  };
  let stop = (_isReplaced: boolean): void => {};
  try {
    const membership = joinPrimary((isReplaced) => stop(isReplaced));
    const options = readOptions(process.argv.slice(2), membership?.primaryPid);
    if (options.processes > 1 && !membership) {
      lead(program, options);
      return;
    }
    const responder = program.openResponder();
    const listened = membership?.listen(responder.server) ?? listenAt(responder.server, options.place);
    listened.then(
      (listening) => {
        stop = stayUntilTold(responder, listening, options, membership);
      },
      (error: Error) => {
        membership?.leave();
        fail(
          new Error(
            `httpd starts this script; started by hand, it needs a socket, as in --listen PATH (docs/guide/resident.md): ${error.message}`,
          ),
        );
      },
    );
  } catch (error) {
    fail(error as Error);
  }
}

function readOptions(args: string[], primaryPid?: number): Options {
  const text = (value: string) => ({ type: 'string', default: value }) as const;
  const known = { listen: { type: 'string' }, idle: text('0'), processes: text('1') } as const;
  const { listen, idle, processes } = parseArgs({ args, options: known }).values;
  if (!/^[0-9]{1,6}$/.test(idle)) throw new RangeError('--idle must be a number of seconds');
  if (!/^[1-9][0-9]?$/.test(processes)) throw new RangeError('--processes must be a number from 1 to 99');
  const numbers = { idleSeconds: Number(idle), processes: Number(processes) };
  if (listen !== undefined) {
    try {
      return { place: parseListeningPlace(listen), ...numbers, quietMilliseconds: QUIET_MS };
    } catch (error) {
      throw new RangeError(`--listen: ${(error as Error).message}`, { cause: error });
    }
  }
  const passed = findPassedSocket(process.env, primaryPid);
  // systemd holds its socket and starts the next process for new clients; mod_fcgid has one socket
  // for each process.
  if (passed) return { place: passed, ...numbers, quietMilliseconds: 0 };
  if (numbers.processes > 1)
    throw new RangeError('--processes works only with --listen and systemd: mod_fcgid starts its own');
  return { place: { fd: 0 }, ...numbers, quietMilliseconds: QUIET_MS };
}

/**
 * Runs the primary, which serves nothing itself: it starts the workers, ends after the last of
 * them, and reports why.
 */
function lead(program: StayingProgram, { place, processes, idleSeconds }: Options): void {
  const primary = startPrimary({ place, processes, onError: (error) => program.logProblem(error.message) });
  let activity = 0;
  let activeAt = performance.now();
  const stop = (why?: string): void => {
    if (why !== undefined && !primary.hasEnded()) program.logProblem(`ends: ${why}`);
    clearInterval(looking);
    primary.listening.leave();
    primary.end();
  };
  const looking = setInterval(() => {
    if (primary.activity() !== activity) activeAt = performance.now();
    activity = primary.activity();
    if (primary.hasEnded()) stop();
    else if (!primary.listening.isOurs()) stop('another process has its socket');
    else if (idleSeconds > 0 && performance.now() - activeAt > idleSeconds * 1000)
      stop(`no request for ${idleSeconds} s`);
  }, LOOK_MS);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop(signal));
  process.on('SIGHUP', () => {
    program.logProblem('SIGHUP: replacing all processes');
    primary.renew();
  });
}

/**
 * Returns the function that ends the process. A worker that was replaced leaves new clients to the
 * others on its socket.
 */
function stayUntilTold(
  responder: Responder,
  listening: Listening,
  { place, idleSeconds, quietMilliseconds }: Options,
  membership?: Membership,
): (isReplaced: boolean) => void {
  const parent = process.ppid;
  let activity = responder.activity();
  let activeAt = performance.now();
  const stop = (isReplaced = false): void => {
    clearInterval(looking);
    listening.leave();
    if (isReplaced) responder.end(0, 0);
    else responder.end(quietMilliseconds, 'port' in place ? PORT_LIMIT_MS : undefined);
  };
  const looking = setInterval(() => {
    if (responder.isBusy() || responder.activity() !== activity) {
      activeAt = performance.now();
      membership?.tellActivity();
    }
    activity = responder.activity();
    const isIdle = !membership && idleSeconds > 0 && performance.now() - activeAt > idleSeconds * 1000;
    // An httpd that was killed leaves its processes behind, with a socket that nobody can find.
    const isOrphan = 'fd' in place && place.fd === 0 && process.ppid !== parent;
    if (isIdle || isOrphan || !listening.isOurs()) stop();
  }, LOOK_MS);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop());
  // A terminal that is closed sends SIGHUP to all processes; the primary handles it.
  process.on('SIGHUP', () => membership ?? stop());
  responder.server.on('close', () => membership?.leave());
  return stop;
}
