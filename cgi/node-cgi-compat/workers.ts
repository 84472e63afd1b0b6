// Several worker processes that listen on one socket. The primary creates and holds the socket,
// starts the workers, and replaces any that dies; it serves nothing itself. The kernel gives a
// connection to the first worker that accepts it, so a worker that waits for the disk or for a hook
// is skipped. While no worker listens, connections wait in the socket that the primary holds.
import { type ChildProcess, fork } from 'node:child_process';
import type { Server } from 'node:net';
import * as net from 'node:net';
import { getSystemErrorName } from 'node:util';
import type { Listening, ListeningPlace } from './listener.ts';
import { checkPlace, firstPlace, listenUnder, OWNER_ALONE, takePlace } from './place.ts';

/** The options of a primary. */
export interface PrimaryOptions {
  place: ListeningPlace;
  processes: number;
  /** Called when a worker has died. */
  onError: (error: Error) => void;
}

/** A primary's handle on its workers. */
export interface Primary {
  listening: Listening;
  /** Increases with the activity that the workers report. */
  activity(): number;
  /** True when no worker is running and none will be started. */
  hasEnded(): boolean;
  /**
   * Replaces all workers. Each old one ends when a new one listens and its own requests are
   * answered.
   */
  renew(): void;
  /** Lets all workers finish their requests and end. */
  end(): void;
}

/** A worker that dies sooner than this is replaced only after this time. */
const SHORTEST_LIFE_MS = 1_000;
/** The variable that tells a worker the process id of its primary. */
const PRIMARY_VARIABLE = 'NODE_CGI_COMPAT_LEADER';
/** The descriptor after the three standard streams and the IPC channel. */
const SOCKET_FD = 4;
/** The messages between primary and workers. */
const [LISTENS, IS_ACTIVE, RETIRE] = ['listens', 'is active', 'retire'] as const;

/** A socket that has its name but does not listen yet. */
interface Socket {
  fd: number;
  close(): void;
}

/**
 * Starts the running script this many times with the same arguments; each process learns from
 * `joinPrimary` that it has a primary. When the first worker exits before any has listened, the
 * primary exits with code 1, because that worker has reported the problem. A worker that was killed
 * is replaced, even before any has listened. Throws errors of system calls when the socket cannot
 * be created.
 */
export function startPrimary({ place, processes, onError }: PrimaryOptions): Primary {
  checkPlace(place);
  const first = firstPlace(place);
  const socket = openSocket(first);
  const workers = new Set<ChildProcess>();
  /** Workers that will end, or were told to end, because others listen in their place. */
  const replaced = new Set<ChildProcess>();
  let listening: Listening | undefined;
  let activity = 0;
  let isEnding = false;

  const end = (): void => {
    isEnding = true;
    for (const worker of workers) worker.kill('SIGTERM');
    // The workers hold the socket as long as they need it. A socket that the primary kept would
    // queue clients that nobody serves.
    socket.close();
  };
  const replace = (worker: ChildProcess, startedAt: number, how: string | number, isWaitedFor: boolean): void => {
    workers.delete(worker);
    if (replaced.delete(worker) || isEnding) return;
    const what = `process ${worker.pid} ended with ${how}`;
    if (!listening && typeof how === 'number') {
      process.exitCode = 1;
      onError(new Error(`${what} before it listened, so nothing is served`));
      end();
    } else if (isWaitedFor) onError(new Error(`${what} before it listened, and the previous one continues`));
    else {
      onError(new Error(`${what}, another one replaces it`));
      setTimeout(start, Math.max(0, SHORTEST_LIFE_MS - (performance.now() - startedAt)));
    }
  };
  const start = (old?: ChildProcess): void => {
    if (isEnding) return;
    const startedAt = performance.now();
    let isWaitedFor = old !== undefined;
    const worker = forkWorker(socket.fd, {
      isActive: () => {
        activity += 1;
      },
      listens: () => {
        isWaitedFor = false;
        // Until a worker listens, clients that find the socket are refused.
        listening ??= takePlace(place, first);
        if (old?.connected) old.send(RETIRE);
        // The worker may not have been able to receive the message before.
        if (isEnding) worker.kill('SIGTERM');
      },
      ended: (how) => {
        // Another worker may replace the old one later.
        if (isWaitedFor && old) replaced.delete(old);
        replace(worker, startedAt, how, isWaitedFor && old !== undefined && workers.has(old));
      },
    });
    workers.add(worker);
  };
  for (let count = 0; count < processes; count += 1) start();
  return {
    listening: { isOurs: () => listening?.isOurs() ?? true, leave: () => listening?.leave() },
    activity: () => activity,
    hasEnded: () => isEnding,
    renew: () => {
      for (const worker of [...workers].filter((one) => !replaced.has(one))) {
        replaced.add(worker);
        start(worker);
      }
    },
    end,
  };
}

interface Hearing {
  listens(): void;
  isActive(): void;
  /**
   * Called with the worker's exit code, the signal that ended it, or why it could not be started.
   */
  ended(how: string | number): void;
}

/** Starts the running script with the same arguments, and passes it a socket. */
function forkWorker(fd: number, hearing: Hearing): ChildProcess {
  const worker = fork(process.argv[1] ?? '', process.argv.slice(2), {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc', fd],
    env: { ...process.env, [PRIMARY_VARIABLE]: String(process.pid) },
  });
  worker.on('message', (message) => {
    if (message === IS_ACTIVE) hearing.isActive();
    if (message === LISTENS) hearing.listens();
  });
  worker.on('exit', (code, signal) => hearing.ended(signal ?? code ?? 0));
  worker.on('error', (error) => {
    if (worker.pid === undefined) hearing.ended(error.message);
  });
  return worker;
}

interface Handle {
  fd: number;
  close(): void;
  getsockname?(into: { port?: number }): number;
}

/**
 * Node's own function for a socket that has its name but accepts nothing; `node:cluster` uses it
 * for its workers.
 */
type CreateServerHandle = (address: string, port: number, addressType: number) => Handle | number;

/** Creates the socket of a place. Throws errors of system calls. */
function openSocket(place: ListeningPlace): Socket {
  if ('fd' in place) return { fd: place.fd, close: () => {} };
  const { _createServerHandle: create } = net as unknown as { _createServerHandle: CreateServerHandle };
  const mask = process.umask(OWNER_ALONE);
  try {
    const handle = 'path' in place ? create(place.path, -1, -1) : create('127.0.0.1', place.port, 4);
    // Only this call reports a port that is taken; a socket without a name would let anyone listen
    // on any port.
    const code = typeof handle === 'number' ? handle : (handle.getsockname?.({}) ?? 0);
    if (code === 0 && typeof handle !== 'number') return { fd: handle.fd, close: () => handle.close() };
    if (typeof handle !== 'number') handle.close();
    const name = getSystemErrorName(code);
    throw Object.assign(new Error(`bind ${name} ${'path' in place ? place.path : place.port}`), { code: name });
  } finally {
    process.umask(mask);
  }
}

/** A worker's connection to its primary. */
export interface Membership {
  /** Listens on the primary's socket. */
  listen(server: Server): Promise<Listening>;
  /** The process id of the primary. */
  primaryPid: number;
  tellActivity(): void;
  /** Must be called at the end; otherwise the IPC channel keeps the process running. */
  leave(): void;
}

/**
 * Joins the primary; undefined in a process without one. `end` is called when the primary is gone,
 * or when another worker replaces this one.
 */
export function joinPrimary(end: (isReplaced: boolean) => void): Membership | undefined {
  const primary = process.env[PRIMARY_VARIABLE];
  if (primary === undefined) return undefined;
  // Processes started by this one have no primary.
  delete process.env[PRIMARY_VARIABLE];
  process.once('disconnect', () => end(false));
  process.on('message', (message) => {
    if (message === RETIRE) end(true);
  });
  // The primary may be gone at any moment.
  const tell = (message: string): void => {
    if (process.connected) process.send?.(message, undefined, undefined, () => {});
  };
  return {
    listen: async (server) => {
      await listenUnder(server, { fd: SOCKET_FD });
      tell(LISTENS);
      return { isOurs: () => true, leave: () => {} };
    },
    primaryPid: Number(primary),
    tellActivity: () => tell(IS_ACTIVE),
    leave: () => process.connected && process.disconnect(),
  };
}
