// The shell of a process that stays (FastCGI): built as a file of its own beside the script, which loads it when httpd did not start it for
// one request, and hands it the core. Nothing of the core may be in here a second time.
import { parseArgs } from 'node:util';
import type { CgiRequest } from 'node-cgi-compat';
import {
  createResponder,
  findPassedSocket,
  type Listening,
  type ListeningPlace,
  listenAt,
  parseListeningPlace,
  type Responder,
} from 'node-cgi-compat/responder';
import type { parsePutQuery } from 'webjob-protocol';
import type { handleRequest } from './handle.ts';
import { keepSettings, type SettingsReader } from './kept-settings.ts';
import type { complain } from './log.ts';
import type { overrideSettings } from './overrides.ts';
import { createSequence } from './sequence.ts';
import type { DEFAULT_FILES, readSettings } from './settings.ts';

/** What the script has and this file uses. */
export interface Core {
  handleRequest: typeof handleRequest;
  readSettings: typeof readSettings;
  overrideSettings: typeof overrideSettings;
  parsePutQuery: typeof parsePutQuery;
  complain: typeof complain;
  DEFAULT_FILES: typeof DEFAULT_FILES;
}

interface Options {
  place: ListeningPlace;
  /** 0 for a process that never ends by itself. */
  idleSeconds: number;
  /** How long nobody may have come before nobody more is expected, once we have left. */
  quietMilliseconds: number;
}

/** Who holds the listening socket alone is the only one whom the late comers have. */
const QUIET_MS = 250;
const LOOK_MS = 1_000;

/** Serves until it is told to end. Says what is wrong on stderr, and ends with 1 when it cannot serve at all. */
export function serveResident(core: Core): void {
  const fail = (error: Error): void => {
    core.complain(`error: ${error.message}`);
    process.exitCode = 1;
  };
  try {
    const options = readOptions(process.argv.slice(2));
    const responder = openResponder(core);
    listenAt(responder.server, options.place).then(
      (listening) => stayUntilTold(responder, listening, options),
      (error: Error) =>
        fail(
          new Error(
            `httpd starts this script, or it needs a place to listen (docs/guide/resident.md): ${error.message}`,
          ),
        ),
    );
  } catch (error) {
    fail(error as Error);
  }
}

function readOptions(args: string[]): Options {
  const known = { listen: { type: 'string' }, idle: { type: 'string', default: '0' } } as const;
  const { listen, idle } = parseArgs({ args, options: known }).values;
  if (!/^[0-9]{1,6}$/.test(idle)) throw new RangeError('--idle is a number of seconds');
  const idleSeconds = Number(idle);
  if (listen !== undefined) {
    try {
      return { place: parseListeningPlace(listen), idleSeconds, quietMilliseconds: QUIET_MS };
    } catch (error) {
      throw new RangeError(`--listen: ${(error as Error).message}`, { cause: error });
    }
  }
  const passed = findPassedSocket(process.env);
  // systemd holds its socket and starts the next process for whoever comes now; mod_fcgid has one socket for one process.
  if (passed) return { place: passed, idleSeconds, quietMilliseconds: 0 };
  return { place: { fd: 0 }, idleSeconds, quietMilliseconds: QUIET_MS };
}

function openResponder(core: Core): Responder {
  const read = keepSettings((file) => core.readSettings(file), core.DEFAULT_FILES);
  const nextSequence = createSequence(process.pid, Date.now());
  return createResponder({
    handler: (request, body) => core.handleRequest(request, body, read, nextSequence),
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
    return own.capContentLength && contentLength > own.maxContentLength ? undefined : own.incomingDirectory;
  } catch {
    // handleRequest finds the same and says it.
    return undefined;
  }
}

function stayUntilTold(
  responder: Responder,
  listening: Listening,
  { place, idleSeconds, quietMilliseconds }: Options,
): void {
  const parent = process.ppid;
  let activity = responder.activity();
  let activeAt = performance.now();
  const stop = (): void => {
    clearInterval(looking);
    listening.leave();
    responder.end(quietMilliseconds);
  };
  const looking = setInterval(() => {
    if (responder.isBusy() || responder.activity() !== activity) activeAt = performance.now();
    activity = responder.activity();
    const isIdle = idleSeconds > 0 && performance.now() - activeAt > idleSeconds * 1000;
    // An httpd that was killed leaves its processes behind, with a socket that nobody knows any more.
    const isOrphan = 'fd' in place && place.fd === 0 && process.ppid !== parent;
    if (isIdle || isOrphan || !listening.isOurs()) stop();
  }, LOOK_MS);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, stop);
}
