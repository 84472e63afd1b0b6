// Several processes that listen at one socket. A leader makes and holds it, starts them, and puts another in the place of one that died;
// it serves nothing itself. The kernel gives a connection to whoever takes it first, so one that waits for the disk or for a hook is
// passed over. While none of them listens, connections wait in the socket that the leader holds.
import { type ChildProcess, fork } from 'node:child_process';
import type { Server } from 'node:net';
import * as net from 'node:net';
import { getSystemErrorName } from 'node:util';
import type { Listening, ListeningPlace } from './listener.ts';
import { checkPlace, firstPlace, listenUnder, OWNER_ALONE, takePlace } from './place.ts';

/** What a leader leads. */
export interface LeaderOptions {
  place: ListeningPlace;
  processes: number;
  /** Hears of processes that died. */
  onError: (error: Error) => void;
}

/** A leader's handle on its processes. */
export interface Leader {
  listening: Listening;
  /** Grows with what the processes say that they do. */
  activity(): number;
  /** True when nobody can be started, or is started any more. */
  hasEnded(): boolean;
  /** Puts new processes in the place of all; each old one ends when a new one listens and its own requests are answered. */
  renew(): void;
  /** Lets all of them end with the requests that they have. */
  end(): void;
}

/** A process that dies sooner than this is not replaced before. */
const SHORTEST_LIFE_MS = 1_000;
/** Says to a process who started it; its value is the process id of the leader. */
const LEADER_VARIABLE = 'NODE_CGI_COMPAT_LEADER';
/** Behind the three standard streams and the channel. */
const SOCKET_FD = 4;
/** What they say to each other. */
const [LISTENS, IS_ACTIVE, RETIRE] = ['listens', 'is active', 'retire'] as const;

/** A socket that has its name and at which nobody listens yet. */
interface Socket {
  fd: number;
  close(): void;
}

/**
 * Starts the running script as often as that, with the same arguments; each finds with `joinLeader` that it has a leader. The leader ends
 * with exit code 1 when the first one ends by itself and has never listened, which has said why. One that was killed is replaced, also
 * before any has listened. Throws errors of system calls when there can be no socket.
 */
export function startLeader({ place, processes, onError }: LeaderOptions): Leader {
  checkPlace(place);
  const first = firstPlace(place);
  const socket = openSocket(first);
  const workers = new Set<ChildProcess>();
  /** Those that are to go, or have been told to, because another listens in their place. */
  const replaced = new Set<ChildProcess>();
  let listening: Listening | undefined;
  let activity = 0;
  let isEnding = false;

  const end = (): void => {
    isEnding = true;
    for (const worker of workers) worker.kill('SIGTERM');
    // They have it as long as they need it. Kept here, it would take in clients whom nobody serves.
    socket.close();
  };
  const replace = (worker: ChildProcess, startedAt: number, how: string | number, isWaitedFor: boolean): void => {
    workers.delete(worker);
    if (replaced.delete(worker) || isEnding) return;
    const what = `process ${worker.pid} ended with ${how}`;
    if (!listening && typeof how === 'number') {
      process.exitCode = 1;
      onError(new Error(`${what} before it listened, and so nothing is served`));
      end();
    } else if (isWaitedFor) onError(new Error(`${what} before it listened, and the one before it serves on`));
    else {
      onError(new Error(`${what}, another takes its place`));
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
        // Before somebody listens, whoever finds the socket is refused.
        listening ??= takePlace(place, first);
        if (old?.connected) old.send(RETIRE);
        // It may not have been able to hear it before.
        if (isEnding) worker.kill('SIGTERM');
      },
      ended: (how) => {
        // The old one may be replaced another time.
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
  /** With its exit code, the signal that ended it, or why it could not be started. */
  ended(how: string | number): void;
}

/** Starts the running script with the same arguments, and a socket. */
function forkWorker(fd: number, hearing: Hearing): ChildProcess {
  const worker = fork(process.argv[1] ?? '', process.argv.slice(2), {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc', fd],
    env: { ...process.env, [LEADER_VARIABLE]: String(process.pid) },
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

/** Node's own way to a socket that has its name and takes no connection, by which `node:cluster` makes one for its workers. */
type CreateServerHandle = (address: string, port: number, addressType: number) => Handle | number;

/** The socket of a place. Throws errors of system calls. */
function openSocket(place: ListeningPlace): Socket {
  if ('fd' in place) return { fd: place.fd, close: () => {} };
  const { _createServerHandle: create } = net as unknown as { _createServerHandle: CreateServerHandle };
  const mask = process.umask(OWNER_ALONE);
  try {
    const handle = 'path' in place ? create(place.path, -1, -1) : create('127.0.0.1', place.port, 4);
    // A port that is taken is told of only now; at a socket without a name anybody could listen at any port.
    const code = typeof handle === 'number' ? handle : (handle.getsockname?.({}) ?? 0);
    if (code === 0 && typeof handle !== 'number') return { fd: handle.fd, close: () => handle.close() };
    if (typeof handle !== 'number') handle.close();
    const name = getSystemErrorName(code);
    throw Object.assign(new Error(`bind ${name} ${'path' in place ? place.path : place.port}`), { code: name });
  } finally {
    process.umask(mask);
  }
}

/** What a process that was started by a leader has of it. */
export interface Membership {
  /** Listens at the socket of the leader. */
  listen(server: Server): Promise<Listening>;
  /** That of the leader. */
  leaderPid: number;
  tellActivity(): void;
  /** To be called at the end: otherwise the leader keeps the process. */
  leave(): void;
}

/** Undefined in a process that has no leader. `end` is called when the leader is gone, or when another process has the place of this one. */
export function joinLeader(end: (isReplaced: boolean) => void): Membership | undefined {
  const leader = process.env[LEADER_VARIABLE];
  if (leader === undefined) return undefined;
  // What this process starts has no leader.
  delete process.env[LEADER_VARIABLE];
  process.once('disconnect', () => end(false));
  process.on('message', (message) => {
    if (message === RETIRE) end(true);
  });
  // The leader may be gone at any moment.
  const tell = (message: string): void => {
    if (process.connected) process.send?.(message, undefined, undefined, () => {});
  };
  return {
    listen: async (server) => {
      await listenUnder(server, { fd: SOCKET_FD });
      tell(LISTENS);
      return { isOurs: () => true, leave: () => {} };
    },
    leaderPid: Number(leader),
    tellActivity: () => tell(IS_ACTIVE),
    leave: () => process.connected && process.disconnect(),
  };
}
