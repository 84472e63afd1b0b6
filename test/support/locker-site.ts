// A site whose locker and log were made by the real server: several clients and commands, every
// state of a job, and output that must not reach a terminal unescaped. For the tests of webjobctl,
// and how they run it.
import { setTimeout as sleep } from 'node:timers/promises';
import { formatRecord, RECORD_FIELDS, type RecordField } from 'webjob-protocol';
import { addCommand, configure, makeSite, type Site } from '../../scripts/site.ts';
import { type BareResult, runBare } from './bare.ts';
import { askWorker } from './locker-worker.ts';
import { runProgram, WEBJOBCTL } from './program-runs.ts';
import { parseAnswer, type StrictAnswer } from './strict-client.ts';
import { findWebUser } from './tree.ts';
import { formatHead, type Put } from './wire-request.ts';

export { WEBJOBCTL };

export interface LockerSite {
  site: Site;
  /** A GET; returns the job id of the answer. */
  get(clientId: string, fileName: string): Promise<{ answer: StrictAnswer; jobId: string }>;
  put(put: Put): Promise<StrictAnswer>;
  /** A PUT by a CGI process of its own. */
  putAsCgi(put: Put): Promise<StrictAnswer>;
  /** GET and PUT as a client does them; returns the job id. */
  run(job: { clientId: string; fileName: string; out?: string; err?: string; record?: Facts }): Promise<string>;
  /** Runs webjobctl with the site's nph-webjob.cfg. */
  webjobctl(...args: string[]): Promise<Ran>;
  /** The values that `--json` printed, one for each line. */
  readJson<Value>(...args: string[]): Promise<Value[]>;
  close(): void;
}

export interface Ran extends BareResult {
  /** Its stdout as text. */
  text: string;
}

type Facts = Partial<Record<RecordField, string>>;

/** The run record of a successful run, with changes. */
export function makeRecord(given: Facts): string {
  const good: Facts = { KidStatus: '0', KidSignal: '0', KidReason: 'The kid exited cleanly.', HashType: 'MD5' };
  const fields = Object.fromEntries(RECORD_FIELDS.map((name) => [name, given[name] ?? good[name] ?? 'NA']));
  const isExtra = ([name]: [string, string]): boolean => !(RECORD_FIELDS as readonly string[]).includes(name);
  return formatRecord({
    fields: fields as Record<RecordField, string>,
    extra: Object.entries(given as Record<string, string>).filter(isExtra),
  });
}

/** A site with an empty locker. */
export function makeLockerSite(settings: Record<string, string> = {}): LockerSite {
  const site = makeSite({ settings });
  const ask = (method: 'GET' | 'PUT', given: Put): Promise<StrictAnswer> =>
    askWorker(formatRaw(method, given), site.propertiesFile);
  const putAsCgi = async (given: Put): Promise<StrictAnswer> => {
    const options = { settingsFile: site.propertiesFile, user: findWebUser(), timeLimitSeconds: 60, isAlone: true };
    return parseAnswer((await runBare(formatRaw('PUT', given), options)).stdout);
  };
  const get: LockerSite['get'] = async (clientId, fileName) => {
    const answer = await ask('GET', { clientId, fileName });
    return { answer, jobId: answer.headers.get('job-id') ?? '' };
  };
  const webjobctl: LockerSite['webjobctl'] = (...args) => runWebjobctl(['--config', site.propertiesFile, ...args]);
  return {
    site,
    get,
    webjobctl,
    putAsCgi,
    put: (put) => ask('PUT', put),
    async run({ clientId, fileName, out = '', err = '', record = {} }) {
      const { jobId } = await get(clientId, fileName);
      const facts = { ClientId: clientId, GetRequest: fileName, Command: fileName, Jid: jobId };
      const { status } = await ask('PUT', {
        clientId,
        fileName,
        jobId,
        out,
        err,
        env: makeRecord({ ...facts, ...record }),
      });
      if (status !== 200) throw new Error(`the PUT of ${jobId} was answered with ${status}`);
      return jobId;
    },
    async readJson<Value>(...args: string[]) {
      const { text } = await webjobctl('--json', ...args);
      return text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Value]));
    },
    close: () => site.remove(),
  };
}

function formatRaw(method: 'GET' | 'PUT', given: Put): Buffer {
  const put = { user: given.clientId ?? 'client1', ...given };
  const body = method === 'PUT' ? [put.out, put.err, put.env].map((text) => text ?? '').join('') : '';
  return Buffer.from(formatHead(method, put) + body, 'latin1');
}

/** Runs the built webjobctl to its end. */
export async function runWebjobctl(args: string[], environment: NodeJS.ProcessEnv = process.env): Promise<Ran> {
  const { code, stdout, stderr } = await runProgram(WEBJOBCTL, args, { environment, timeLimitMs: 60_000 });
  return { stdout, stderr: stderr.toString('latin1'), exitCode: code, text: stdout.toString('utf8') };
}

/** The job ids of the jobs that fillLocker() makes. */
export interface FilledLocker {
  /** client1 host.sh, the older of two successful ones. */
  first: string;
  /** client1 host.sh, the newer one. */
  second: string;
  /** client1 host.sh, exit status 3. */
  failed: string;
  /** client2 ps.sh, ended by signal 9, with binary output. */
  killed: string;
  /** client2 ps.sh, without an upload. */
  got: string;
  /** client1 nothing.sh, which does not exist. */
  refusedGet: string;
  /** client2 ps.sh, the PUT by another user. */
  refusedPut: string;
  /** client1 host.sh, whose PUT broke off. */
  incomplete: string;
  /** client2 ps.sh, stored while logging was off. */
  orphan: string;
}

/** Escape sequences, invalid UTF-8, and a NUL. */
export const HOSTILE_OUTPUT = '\x1b]0;owned\x07\x1b[2Jplain\n\xff\xfe\0\x9b31m\n';

/**
 * Waits for the next second, because the log has whole ones, and jobs of the same second have no
 * order.
 */
export async function nextSecond(): Promise<void> {
  await sleep(1010 - (Date.now() % 1000));
}

/** A job of every kind, one after another, each in a second of its own. */
export async function fillLocker(its: LockerSite): Promise<FilledLocker> {
  const { site, put } = its;
  const get: LockerSite['get'] = (...args) => nextSecond().then(() => its.get(...args));
  const run: LockerSite['run'] = (job) => nextSecond().then(() => its.run(job));
  addCommand(site, 'client2', 'ps.sh', '#!/bin/sh\nps\n');
  const host = { clientId: 'client1', fileName: 'host.sh' };
  const ps = { clientId: 'client2', fileName: 'ps.sh' };
  const first = await run({ ...host, out: 'kept\nbefore\n' });
  const failed = await run({ ...host, err: 'host.sh: not found\n', record: { KidStatus: '3' } });
  const second = await run({ ...host, out: 'kept\nafter\n' });
  const killed = await run({ ...ps, out: HOSTILE_OUTPUT, record: { KidSignal: '9' } });
  const { jobId: got } = await get('client2', 'ps.sh');
  const { jobId: refusedGet } = await get('client1', 'nothing.sh');
  const { jobId: refusedPut } = await get('client2', 'ps.sh');
  await put({ ...ps, jobId: refusedPut, user: 'client1', out: 'never stored\n' });
  const { jobId: incomplete } = await get('client1', 'host.sh');
  // The length of the run record is announced, but it does not arrive.
  const head = formatHead('PUT', { ...host, jobId: incomplete, out: 'arrived\n', env: 'Version=webjob\n' });
  const options = { settingsFile: site.propertiesFile, user: findWebUser(), timeLimitSeconds: 60 };
  await runBare(Buffer.from(`${head}arrived\n`, 'latin1'), options);
  const orphan = 'server_1_1085355126_00723';
  await nextSecond();
  await putUnlogged(site, () => put({ ...ps, jobId: orphan, out: 'unlogged\n', env: makeRecord({}) }));
  return { first, second, failed, killed, got, refusedGet, refusedPut, incomplete, orphan: orphan };
}

async function putUnlogged(site: Site, put: () => Promise<StrictAnswer>): Promise<void> {
  configure(site, { EnableLogging: 'N' });
  const { status } = await put();
  configure(site, {});
  if (status !== 200) throw new Error(`the PUT was answered with ${status}`);
}
