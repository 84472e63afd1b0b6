// The persistent worker (FastCGI): built as a file of its own beside the script, which loads it
// when httpd did not start it for one request, and passes it the core. This file must not contain a
// second copy of any part of the core.
import type { CgiRequest } from 'node-cgi-compat';
import { createResponder, type Responder } from 'node-cgi-compat/responder';
import type { parsePutQuery } from 'webjob-protocol';
import type { Exchange } from './exchange.ts';
import { createGroup, type GroupCore } from './group.ts';
import type { handleRequest, handleSteps } from './handle.ts';
import { keepSettings, type SettingsReader } from './kept-settings.ts';
import type { admitEarly } from './limits.ts';
import type { logProblem } from './log.ts';
import type { overrideSettings } from './overrides.ts';
import { stay } from './persistent.ts';
import { createSequence } from './sequence.ts';
import type { Configuration, DEFAULT_FILES, readSettings } from './settings.ts';

/** The functions of the script that this file uses. */
export interface Core extends GroupCore {
  handleRequest: typeof handleRequest;
  handleSteps: typeof handleSteps;
  admitEarly: typeof admitEarly;
  readSettings: typeof readSettings;
  overrideSettings: typeof overrideSettings;
  parsePutQuery: typeof parsePutQuery;
  logProblem: typeof logProblem;
  DEFAULT_FILES: typeof DEFAULT_FILES;
}

/**
 * The number of threads that wait for the disk, and thus of fsyncs that the kernel can merge.
 * Node's default of four would serve a single upload. Node reads the variable when the first thread
 * starts.
 */
const DISK_THREADS = '16';

const HELP = `Usage: nph-webjob.cgi --listen PLACE [--processes N] [--idle SECONDS]

serve WebJob clients by FastCGI. httpd starts it as a CGI script, for one request.

  --listen PLACE    run as a persistent worker that listens at a path or a port of 127.0.0.1
  --processes N     the number of workers that share the socket
  --idle SECONDS    end after this time without a request
  -h, --help        print this help

WEBJOB_PROPERTIES_FILE names the site's nph-webjob.cfg. See nph-webjob(8).
`;

/**
 * Serves until it is told to end. Reports problems on stderr, and exits with 1 when it cannot serve
 * at all.
 */
export function serveResident(core: Core): void {
  if (/^(?:-h|--help)$/.test(process.argv[2] ?? '')) {
    process.stdout.write(HELP);
    return;
  }
  process.env.UV_THREADPOOL_SIZE ??= DISK_THREADS;
  stay({ openResponder: () => openResponder(core), logProblem: core.logProblem });
}

function openResponder(core: Core): Responder {
  const kept = keepSettings((file) => core.readSettings(file), core.DEFAULT_FILES);
  const nextSequence = createSequence(process.pid, Date.now());
  // The configuration that the last request used, by settings file, so that a site without limits
  // pays no additional look at the file.
  const latest = new Map<string | undefined, Configuration>();
  const read: SettingsReader = (file) => {
    const configuration = kept(file);
    latest.set(file, configuration);
    return configuration;
  };
  const group = createGroup(core);
  const slots = new WeakMap<CgiRequest, Exchange['slot']>();
  return createResponder({
    onRequest: (request) => {
      const file = request.env.WEBJOB_PROPERTIES_FILE || undefined;
      const last = latest.get(file);
      const configuration = last?.settings.maxRequestsAtOnce === 0 ? last : read(file);
      slots.set(request, core.admitEarly(request, configuration));
    },
    handler: (request, body) => {
      const given = [request, body, read, nextSequence, slots.get(request)] as const;
      return request.method === 'PUT' ? group.run(core.handleSteps(...given)) : core.handleRequest(...given);
    },
    findSpoolFolder: (request) => findSpoolFolder(core, read, request),
    onError: (error) => core.logProblem(`FastCGI: ${error.stack ?? error.message}`),
  });
}

/**
 * The directory for a request's body: on the locker's own file system, where the body ends up. The
 * body of a request that will be refused in any case is not kept; otherwise MaxContentLength would
 * not protect the disk.
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
    // handleRequest() finds the same problem and reports it.
    return undefined;
  }
}
