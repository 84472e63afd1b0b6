// A site as a busy one looks after months: a log of any length and a locker of any number of groups, in the exact formats, the same for the
// same seed. Made by direct writes, as the CGI would take hours. For the benchmarks; alone it makes one and leaves it there.
import { appendFileSync, mkdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { formatReady } from 'webjob-locker';
import { formatEpoch, formatJobId, formatLogLine, formatRecord, formatTime, RECORD_FIELDS } from 'webjob-protocol';

const HELP = `Usage: node bench/locker.ts [--groups N] [--lines M] [--seed S] folder

Makes a site in a folder that does not exist: etc/nph-webjob.cfg, a log of M lines (default 20000), and the files of the
youngest N jobs (default 1000), as a site has that removes old ones. The last job ended on 2026-11-01 at 00:00:00 GMT.
`;

export interface LockerPlan {
  folder: string;
  groups: number;
  lines: number;
  seed: number;
}

/** When the last job ended. */
const LOCKER_END = Date.UTC(2026, 10, 1);
/** From one job to the next. */
const STEP_SECONDS = 17;
const CLIENTS = 500;
const COMMANDS = ['host.sh', 'ps.sh', 'df.sh', 'netstat.sh', 'rpm-verify.sh', 'last.sh', 'md5-tree.sh'];

/** Makes it; the path of its nph-webjob.cfg. */
export function makeLocker({ folder, groups, lines, seed }: LockerPlan): string {
  mkdirSync(folder);
  for (const name of ['etc', 'incoming', 'logfiles', 'profiles']) mkdirSync(join(folder, name));
  const config = join(folder, 'etc', 'nph-webjob.cfg');
  writeFileSync(config, `BaseDirectory=${folder}\nUseGMT=Y\n`);
  const random = makeRandom(seed);
  const jobs = Math.ceil(lines / 2);
  let block = '';
  for (let index = 0; index < jobs; index++) {
    const job = makeJob(random, index, LOCKER_END - (jobs - 1 - index) * STEP_SECONDS * 1000);
    block += `${job.lines.slice(0, lines - index * 2).join('\n')}\n`;
    if (block.length > 1_000_000 || index === jobs - 1) {
      appendFileSync(join(folder, 'logfiles', 'nph-webjob.log'), block);
      block = '';
    }
    if (index >= jobs - groups) writeGroup(join(folder, 'incoming'), job);
  }
  return config;
}

interface MadeJob {
  lines: string[];
  name: string;
  jobId: string;
  clientId: string;
  command: string;
  exitCode: number;
  endedAt: Date;
  /** Differs from one job to the next. */
  fact: number;
}

function makeJob(random: () => number, index: number, ended: number): MadeJob {
  const clientId = `client${Math.floor(random() * CLIENTS)}`;
  const command = COMMANDS[Math.floor(random() * COMMANDS.length)] ?? '';
  const pid = 1000 + (index % 30_000);
  const gotAt = new Date(ended - 2000);
  const endedAt = new Date(ended);
  const jobId = formatJobId({ serverId: 'server_1', epochSeconds: gotAt.getTime() / 1000, sequence: pid });
  const facts = { jobId, remoteUser: clientId, remoteAddress: '192.168.1.120', clientId, fileName: command };
  const rest = { seconds: 0, status: 200, message: 'Success' };
  const get = { ...facts, ...rest, time: formatTime(gotAt, true), method: 'GET', bytesReceived: 0, bytesSent: 190 };
  const put = { ...facts, ...rest, time: formatTime(endedAt, true), method: 'PUT', bytesReceived: 1500, bytesSent: 0 };
  const stamp = formatTime(endedAt, true).replace(/\D/g, '');
  return {
    ...{ jobId, clientId, command, endedAt, lines: [formatLogLine(get), formatLogLine(put)] },
    name: `${clientId}_${stamp}_${String(pid + 1).padStart(5, '0')}_${command}`,
    ...{ exitCode: random() < 0.02 ? 1 : 0, fact: Math.floor(random() * 1e9) },
  };
}

function writeGroup(incoming: string, job: MadeJob): void {
  const epoch = formatEpoch(job.endedAt.getTime() * 1000, 'UTC');
  const known: Record<string, string> = {
    ...{ ClientId: job.clientId, GetRequest: job.command, Command: job.command, Jid: job.jobId },
    ...{ KidStatus: String(job.exitCode), KidSignal: '0', KidReason: 'The kid exited cleanly.', RunEpoch: epoch },
  };
  const fields = Object.fromEntries(RECORD_FIELDS.map((name) => [name, known[name] ?? 'NA']));
  const record = formatRecord({ fields: fields as Parameters<typeof formatRecord>[0]['fields'], extra: [] });
  const out = Array.from({ length: 20 }, (_, line) => `line ${line} of ${job.clientId}: ${job.fact + line}\n`).join('');
  const base = join(incoming, job.name);
  writeFileSync(`${base}.out`, out);
  writeFileSync(`${base}.err`, job.exitCode === 0 ? '' : `${job.command}: it failed\n`);
  writeFileSync(`${base}.env`, record);
  writeFileSync(`${base}.rdy`, formatReady(job.jobId));
  for (const extension of ['out', 'err', 'env', 'rdy']) utimesSync(`${base}.${extension}`, job.endedAt, job.endedAt);
}

/** Numbers from 0 to 1, the same for the same seed: a linear congruential generator (Numerical Recipes, section 7.1). */
function makeRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

function parseCount(name: string, text: string): number {
  if (!/^[0-9]{1,8}$/.test(text)) throw new RangeError(`--${name} is a whole number`);
  return Number(text);
}

if (import.meta.main) {
  const options = {
    groups: { type: 'string', default: '1000' },
    lines: { type: 'string', default: '20000' },
    seed: { type: 'string', default: '1' },
    help: { type: 'boolean', default: false },
  } as const;
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  const [folder, ...others] = positionals;
  if (values.help || folder === undefined || others.length > 0) process.stdout.write(HELP);
  else {
    const [groups, lines, seed] = (['groups', 'lines', 'seed'] as const).map((name) => parseCount(name, values[name]));
    process.stdout.write(`${makeLocker({ folder, groups: groups ?? 0, lines: lines ?? 0, seed: seed ?? 0 })}\n`);
  }
}
