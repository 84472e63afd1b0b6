// The shell of a process that stays (FastCGI): built as a file of its own beside the script, which loads it when httpd did not start it for
// one request, and hands it the core. Nothing of the core may be in here a second time.
import { parseArgs } from 'node:util';
import type { CgiRequest } from 'node-cgi-compat';
import {
  createResponder,
  findPassedSocket,
  joinLeader,
  type Listening,
  type ListeningPlace,
  listenAt,
  type Membership,
  parseListeningPlace,
  type Responder,
  startLeader,
} from 'node-cgi-compat/responder';
import type { parsePutQuery } from 'webjob-protocol';
import type { Exchange } from './exchange.ts';
import type { handleRequest } from './handle.ts';
import { keepSettings, type SettingsReader } from './kept-settings.ts';
import type { admitEarly } from './limits.ts';
import type { complain } from './log.ts';
import type { overrideSettings } from './overrides.ts';
import { createSequence } from './sequence.ts';
import type { Configuration, DEFAULT_FILES, readSettings } from './settings.ts';

/** What the script has and this file uses. */
export interface Core {
  handleRequest: typeof handleRequest;
  admitEarly: typeof admitEarly;
  readSettings: typeof readSettings;
  overrideSettings: typeof overrideSettings;
  parsePutQuery: typeof parsePutQuery;
  complain: typeof complain;
  DEFAULT_FILES: typeof DEFAULT_FILES;
}

interface Options {
  place: ListeningPlace;
  processes: number;
  /** 0 for a process that never ends by itself. */
  idleSeconds: number;
  /** How long nobody may have come before nobody more is expected, once we have left. */
  quietMilliseconds: number;
}

/** Who holds the listening socket alone is the only one whom the late comers have. */
const QUIET_MS = 250;
/** A port, unlike a path, cannot be left: who asks there all the time would never let it end. */
const PORT_LIMIT_MS = 1_000;
const LOOK_MS = 1_000;

/** Serves until it is told to end. Says what is wrong on stderr, and ends with 1 when it cannot serve at all. */
export function serveResident(core: Core): void {
  const fail = (error: Error): void => {
    core.complain(`error: ${error.message}`);
    process.exitCode = 1;
  };
  let stop = (_isReplaced: boolean): void => {};
  try {
    const membership = joinLeader((isReplaced) => stop(isReplaced));
    const options = readOptions(process.argv.slice(2), membership?.leaderPid);
    if (options.processes > 1 && !membership) {
      lead(core, options);
      return;
    }
    const responder = openResponder(core);
    const listened = membership?.listen(responder.server) ?? listenAt(responder.server, options.place);
    listened.then(
      (listening) => {
        stop = stayUntilTold(responder, listening, options, membership);
      },
      (error: Error) => {
        membership?.leave();
        fail(
          new Error(
            `httpd starts this script, or it needs a place to listen (docs/guide/resident.md): ${error.message}`,
          ),
        );
      },
    );
  } catch (error) {
    fail(error as Error);
  }
}

function readOptions(args: string[], leaderPid?: number): Options {
  const text = (value: string) => ({ type: 'string', default: value }) as const;
  const known = { listen: { type: 'string' }, idle: text('0'), processes: text('1') } as const;
  const { listen, idle, processes } = parseArgs({ args, options: known }).values;
  if (!/^[0-9]{1,6}$/.test(idle)) throw new RangeError('--idle is a number of seconds');
  if (!/^[1-9][0-9]?$/.test(processes)) throw new RangeError('--processes is a number from 1 to 99');
  const numbers = { idleSeconds: Number(idle), processes: Number(processes) };
  if (listen !== undefined) {
    try {
      return { place: parseListeningPlace(listen), ...numbers, quietMilliseconds: QUIET_MS };
    } catch (error) {
      throw new RangeError(`--listen: ${(error as Error).message}`, { cause: error });
    }
  }
  const passed = findPassedSocket(process.env, leaderPid);
  // systemd holds its socket and starts the next process for whoever comes now; mod_fcgid has one socket for one process.
  if (passed) return { place: passed, ...numbers, quietMilliseconds: 0 };
  if (numbers.processes > 1)
    throw new RangeError('--processes is for --listen and for systemd: mod_fcgid starts its own');
  return { place: { fd: 0 }, ...numbers, quietMilliseconds: QUIET_MS };
}

/** Serves nothing: starts those who do, and ends when the last one has, and says why. */
function lead(core: Core, { place, processes, idleSeconds }: Options): void {
  const leader = startLeader({ place, processes, onError: (error) => core.complain(error.message) });
  let activity = 0;
  let activeAt = performance.now();
  const stop = (why?: string): void => {
    if (why !== undefined && !leader.hasEnded()) core.complain(`ends: ${why}`);
    clearInterval(looking);
    leader.listening.leave();
    leader.end();
  };
  const looking = setInterval(() => {
    if (leader.activity() !== activity) activeAt = performance.now();
    activity = leader.activity();
    if (leader.hasEnded()) stop();
    else if (!leader.listening.isOurs()) stop('another process has its socket');
    else if (idleSeconds > 0 && performance.now() - activeAt > idleSeconds * 1000)
      stop(`no request for ${idleSeconds} s`);
  }, LOOK_MS);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop(signal));
  process.on('SIGHUP', () => {
    core.complain('SIGHUP: new processes take the place of all');
    leader.renew();
  });
}

function openResponder(core: Core): Responder {
  const kept = keepSettings((file) => core.readSettings(file), core.DEFAULT_FILES);
  const nextSequence = createSequence(process.pid, Date.now());
  // By settings file: what it said when a request was last served. So a site without limits costs a request no look at the file more.
  const latest = new Map<string | undefined, Configuration>();
  const read: SettingsReader = (file) => {
    const configuration = kept(file);
    latest.set(file, configuration);
    return configuration;
  };
  const slots = new WeakMap<CgiRequest, Exchange['slot']>();
  return createResponder({
    onRequest: (request) => {
      const file = request.env.WEBJOB_PROPERTIES_FILE || undefined;
      const last = latest.get(file);
      const configuration = last?.settings.maxRequestsAtOnce === 0 ? last : read(file);
      slots.set(request, core.admitEarly(request, configuration));
    },
    handler: (request, body) => core.handleRequest(request, body, read, nextSequence, slots.get(request)),
    findSpoolFolder: (request) => findSpoolFolder(core, read, request),
    onError: (error) => core.complain(`FastCGI: ${error.stack ?? error.message}`),
  });
}

/**
 * The locker's own file system takes a body that is to lie there in the end. One that will be refused whatever it holds is not kept:
 * otherwise MaxContentLength would protect the disk from nobody.
 */
function findSpoolFolder(core: Core, read: SettingsReader, request: CgiRequest): string | undefined {
  const { settings, given, problems } = read(request.env.WEBJOB_PROPERTIES_FILE || undefined);
  const { contentLength } = request;
  if (problems.length > 0 || request.method !== 'PUT' || contentLength === undefined) return undefined;
  try {
    const { clientId, fileName } = core.parsePutQuery(request.query);
    const own = settings.enableConfigOverrides ? core.overrideSettings(settings, given, clientId, fileName) : settings;
    const isOver = own.capContentLength && contentLength > own.maxContentLength;
    const isOverDay = own.maxBytesPerDay > 0 && contentLength > own.maxBytesPerDay;
    return isOver || isOverDay ? undefined : own.incomingDirectory;
  } catch {
    // handleRequest finds the same and says it.
    return undefined;
  }
}

/** Returns how it is told; one that was replaced leaves those who come now to the others at its socket. */
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
    // An httpd that was killed leaves its processes behind, with a socket that nobody knows any more.
    const isOrphan = 'fd' in place && place.fd === 0 && process.ppid !== parent;
    if (isIdle || isOrphan || !listening.isOurs()) stop();
  }, LOOK_MS);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => stop());
  // A terminal that is closed sends it to all: the leader knows what to do.
  process.on('SIGHUP', () => membership ?? stop());
  responder.server.on('close', () => membership?.leave());
  return stop;
}
