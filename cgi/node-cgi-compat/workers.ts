// Several processes that listen at one socket. A leader holds it, starts them, and puts another in the place of one that died; it serves
// nothing itself. The kernel gives a connection to whoever takes it first, so one that waits for the disk or for a hook is passed over.
import cluster, { type Worker } from 'node:cluster';
import { existsSync } from 'node:fs';
import type { Server } from 'node:net';
import type { Listening, ListeningPlace } from './listener.ts';
import { checkPlace, firstPlace, listenUnder, OWNER_ALONE, takePlace } from './place.ts';

/** What a leader leads. */
export interface LeaderOptions {
  place: ListeningPlace;
  processes: number;
  /** Hears of processes that died. */
  onError: (error: Error) => void;
}

/** The processes of a leader, seen from him. */
export interface Leader {
  listening: Listening;
  /** Grows with what the processes say that they do. */
  activity(): number;
  /** True when nobody can be started, or is started any more. */
  hasEnded(): boolean;
  /** Lets all of them end with the requests that they have. */
  end(): void;
}

/** A process that dies sooner than this is not replaced before. */
const SHORTEST_LIFE_MS = 1_000;

/**
 * Starts the running script as often as that, with the same arguments; each finds with `joinLeader` that it has a leader. The leader ends
 * with exit code 1 when the first one that ends has never listened, which has said why; and when nobody is left at a socket that was
 * passed: who made it starts a leader anew.
 */
export function startLeader({ place, processes, onError }: LeaderOptions): Leader {
  checkPlace(place);
  // For the socket, which Node makes in this process when the first of the others asks for it.
  process.umask(OWNER_ALONE);
  const first = firstPlace(place);
  const atSocket = new Set<Worker>();
  let listening: Listening | undefined;
  let activity = 0;
  let isEnding = false;

  const end = (): void => {
    isEnding = true;
    for (const worker of Object.values(cluster.workers ?? {})) worker?.process.kill('SIGTERM');
  };
  const welcome = (worker: Worker): void => {
    atSocket.add(worker);
    // The second one finds it taken. It is made anew when all have died.
    if (!listening || ('path' in first && existsSync(first.path))) listening = takePlace(place, first);
    // It may not have been able to hear it before.
    if (isEnding) worker.process.kill('SIGTERM');
  };
  const replace = (worker: Worker, startedAt: number, how: string | number): void => {
    atSocket.delete(worker);
    if (isEnding) return;
    if (!listening || ('fd' in place && atSocket.size === 0)) {
      process.exitCode = 1;
      end();
      return;
    }
    onError(new Error(`process ${worker.process.pid} ended with ${how}, another takes its place`));
    setTimeout(start, Math.max(0, SHORTEST_LIFE_MS - (performance.now() - startedAt)));
  };
  const start = (): void => {
    if (isEnding) return;
    const startedAt = performance.now();
    const worker = cluster.fork();
    worker.on('message', () => {
      activity += 1;
    });
    worker.on('listening', () => welcome(worker));
    worker.on('exit', (code, signal) => replace(worker, startedAt, signal ?? code));
  };
  cluster.schedulingPolicy = cluster.SCHED_NONE;
  for (let count = 0; count < processes; count += 1) start();
  return {
    listening: { isOurs: () => listening?.isOurs() ?? true, leave: () => listening?.leave() },
    activity: () => activity,
    hasEnded: () => isEnding,
    end,
  };
}

/** What a process that was started by a leader has of it. */
export interface Membership {
  /** Listens at the socket of the leader, whose place is given. */
  listen(server: Server, place: ListeningPlace): Promise<Listening>;
  /** That of the leader. */
  leaderPid: number;
  tellActivity(): void;
  /** To be called at the end: otherwise the leader keeps the process. */
  leave(): void;
}

/** Undefined in a process that has no leader. `end` is called when the leader is gone. */
export function joinLeader(end: () => void): Membership | undefined {
  const { worker } = cluster;
  if (!worker) return undefined;
  const leaderPid = process.ppid;
  // Otherwise Node ends this process when the leader is gone, with the answers that are on their way.
  worker.exitedAfterDisconnect = true;
  process.once('disconnect', end);
  return {
    listen: async (server, place) => {
      await listenUnder(server, firstPlace(place, leaderPid));
      return { isOurs: () => true, leave: () => {} };
    },
    leaderPid,
    // The leader may be gone at any moment.
    tellActivity: () => process.send?.('active', undefined, undefined, () => {}),
    leave: () => process.connected && process.disconnect(),
  };
}
