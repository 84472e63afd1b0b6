// A site under httpd for the settings that run commands or write their own logs: clients, scripts
// to run, the contents of the logs, and the processes of scripts that are left.
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type CommandLogLine, parseCommandLogLine } from 'webjob-protocol';
import { type HttpdOptions, type Server, startHttpd } from '../../scripts/httpd.ts';
import { linesOfWay, MODULES_OF_WAY, type Resident, startResident } from '../../scripts/resident.ts';
import { addUser, configure, makeSite, type Site } from '../../scripts/site.ts';
import { until } from './cgi-scripts.ts';
import { askStrictly, type StrictAnswer } from './strict-client.ts';
import { findWebUser } from './tree.ts';
import { type Ask, formatHead, type Put } from './wire-request.ts';

export { type Ask, formatHead, type Put };

export interface CommandSite {
  site: Site;
  server: Server;
  spool: string;
  /** A directory of the web user, for files that scripts make. */
  scratch: string;
  configure(settings: Record<string, string>, more?: string): void;
  get(ask?: Ask): Promise<StrictAnswer>;
  put(ask?: Put): Promise<StrictAnswer>;
  /** Writes a program and returns its path, which differs from that of all other sites. */
  script(name: string, text: string): string;
  /** The lines of the log of hooks or triggers. Throws for a malformed one. */
  commandLines(log: 'hook' | 'trigger'): CommandLogLine[];
  /** The ids of all processes with a path of this site's scripts in their command lines. */
  running(): number[];
  /** Waits until none is left. */
  settled(): Promise<void>;
  /** Empties the locker, the scratch directory and every log; ends every script that is left. */
  reset(): void;
  errors(): string;
  close(): Promise<void>;
}

/** The same script without a password. */
const OPEN_FOLDER = `
ScriptAlias /open/ "$\{WEBJOB_CGI_DIRECTORY}/"
<Location "/open/">
  Require all granted
</Location>`;

const LOGS = [
  ...['nph-webjob.log', 'nph-webjob-hook.log', 'nph-webjob-trigger.log', 'nph-webjob.json.log'],
  'nph-webjob-custody.server_1.jsonl',
];

/** Makes the directories and logs of the web user, and programs for that user's scripts. */
export function prepareSite(site: Site): { spool: string; scratch: string; scripts: string } {
  const [spool, scratch, scripts] = [join(site.base, 'spool'), join(site.root, 'scratch'), join(site.root, 'scripts')];
  for (const folder of [spool, scratch, scripts]) mkdirSync(folder, { recursive: true, mode: 0o755 });
  for (const name of LOGS) writeFileSync(join(site.base, 'logfiles', name), '', { mode: 0o644 });
  for (const path of [spool, scratch, ...LOGS.map((name) => join(site.base, 'logfiles', name))]) giveAway(path);
  return { spool, scratch, scripts };
}

/** Gives a file to the user that runs scripts. */
export function giveAway(path: string): void {
  const user = findWebUser();
  if (user) chownSync(path, user.uid, user.gid);
}

/**
 * By default served by CGI under event. A persistent worker is for tests of what a setting does,
 * which is the same in every configuration, and saves the start of Node for each request.
 */
export async function startCommandSite(options: Partial<HttpdOptions> | 'worker' = {}): Promise<CommandSite> {
  const site = makeSite({ resident: options === 'worker' });
  addUser(site, 'client2', 'bar');
  const { spool, scratch, scripts } = prepareSite(site);
  const workerLog = join(site.root, 'run', 'stderr');
  const { server, worker } =
    options === 'worker'
      ? await startBehindWorker(site, workerLog)
      : { server: await startHttpd({ site, mpm: 'event', after: OPEN_FOLDER, ...options }), worker: undefined };
  const errorLogs = [server.errorLog, ...(worker ? [workerLog] : [])];
  const running = (): number[] => findProcesses(`${scripts}/`);
  const endAll = (): void => {
    for (const pid of running()) endProcess(pid);
  };
  return {
    site,
    server,
    spool,
    scratch,
    running,
    configure: (settings, more) => configure(site, settings, more),
    get: (ask = {}) => askStrictly({ port: server.port, head: formatHead('GET', ask) }),
    put: (ask = {}) => {
      const body = [ask.out, ask.err, ask.env].map((stream) => Buffer.from(stream ?? '', 'latin1'));
      return askStrictly({
        port: server.port,
        head: formatHead('PUT', ask),
        body: body.filter(({ length }) => length),
      });
    },
    script: (name, text) => {
      const path = join(scripts, name);
      writeFileSync(path, text, 'latin1');
      chmodSync(path, 0o755);
      return path;
    },
    commandLines: (log) => readLines(join(site.base, `logfiles/nph-webjob-${log}.log`)).map(parseCommandLogLine),
    settled: async () => {
      await until(() => running().length === 0, 'the end of every process of a script');
    },
    reset: () => {
      endAll();
      for (const folder of [site.incoming, scratch]) {
        for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true });
      }
      for (const name of LOGS) writeFileSync(join(site.base, 'logfiles', name), '');
      for (const log of errorLogs) writeFileSync(log, '');
    },
    errors: () => errorLogs.map((log) => readFileSync(log, 'latin1')).join(''),
    close: async () => {
      endAll();
      await server.stop();
      await worker?.stop();
      site.remove();
    },
  };
}

/**
 * httpd in front of a worker whose stderr is a file: its messages about a request are there before
 * the answer.
 */
async function startBehindWorker(site: Site, log: string): Promise<{ server: Server; worker: Resident }> {
  const worker = await startResident(site, [], '', ['/bin/sh', '-c', `exec "$0" "$@" 2>> '${log}'`]);
  const { before, after } = linesOfWay('mod_proxy_fcgi', site, join(site.root, 'httpd-event'));
  try {
    const modules = MODULES_OF_WAY.mod_proxy_fcgi;
    const server = await startHttpd({
      site,
      mpm: 'event',
      modules,
      before,
      after: `${after}\nKeepAlive Off\n${OPEN_FOLDER}`,
    });
    return { server, worker };
  } catch (error) {
    await worker.stop();
    throw error;
  }
}

/** Lines of a log. Throws when the last one is incomplete. */
export function readLines(path: string): string[] {
  const lines = existsSync(path) ? readFileSync(path, 'latin1').split('\n') : [''];
  if (lines.pop() !== '') throw new Error(`the last line of ${path} has no newline`);
  return lines;
}

/** The ids of all processes with this text in their command lines, except zombies. */
export function findProcesses(text: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => readCommandLine(pid).includes(text))
    .map(Number);
}

function readCommandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
  } catch {
    return '';
  }
}

function endProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended meanwhile.
  }
}
