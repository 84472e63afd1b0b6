// A site of several servers with everything that happens to sites: refused, broken and repeated
// PUTs, rotated logs, removed uploads, clocks that are set. Always the same for the same seed. Also
// returns all results of the ledger for a site.
import assert from 'node:assert/strict';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { formatLogLine, formatTime } from 'webjob-protocol';
import { readSettings } from '../../cgi/settings.ts';
import { jobJson } from '../../ledger/fields.ts';
import { type ClientTotals, readJobs, readMeasures, readSums, type Sums } from '../../ledger/jobs.ts';
import { type Site, serversOf } from '../../ledger/site.ts';
import { configure } from '../../scripts/site.ts';
import { type LockerSite, makeLockerSite, makeRecord } from './locker-site.ts';

/** Numbers from 0 to 1, the same for the same seed (Numerical Recipes, section 7.1). */
function makeRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const SERVERS = ['east', 'west', 'server_10'];
const FORMATS = [
  '%cid_%Y%m%d%H%M%S_%pid_%cmd',
  '%cid_%Y%m%d%H%M%S_%sid_%pid_%cmd',
  '%cid/%jid',
  '%Y%m%d/%cid_%H%M%S_%pid_%cmd',
];

export class RandomSite {
  readonly its: LockerSite;
  readonly random: () => number;
  readonly format: string;
  readonly logs: string[];
  /** Milliseconds. */
  now = Date.now() - 60 * 86_400_000;
  count = 0;
  /** The clock was set back: without a store, earlier log lines are not found by time. */
  wentBack = false;
  readonly jobs: { jobId: string; clientId: string; command: string }[] = [];

  constructor(seed: number) {
    this.random = makeRandom(seed);
    this.format = this.pick(FORMATS);
    this.its = makeLockerSite({});
    this.logs = SERVERS.map((id) => join(this.its.site.root, `logs-${id}`));
    for (const folder of this.logs) {
      mkdirSync(folder);
      writeFileSync(join(folder, 'nph-webjob.log'), '');
    }
    const others = SERVERS.slice(1).map((id, index) => `${id}:${this.logs[index + 1]}`);
    configure(this.its.site, {
      PutNameFormat: this.format,
      UseGMT: 'Y',
      ServerId: 'east',
      LogfilesDirectory: this.logs[0] ?? '',
      SiteServers: others.join(','),
      OverwriteExistingFiles: 'Y',
    });
  }

  pick<Value>(values: readonly Value[]): Value {
    return values[Math.floor(this.random() * values.length)] as Value;
  }

  chance(part: number): boolean {
    return this.random() < part;
  }

  site(): Site {
    const { propertiesFile } = this.its.site;
    const { settings, problems } = readSettings(propertiesFile);
    assert.deepEqual(problems, []);
    return { propertiesFile, settings, servers: serversOf(settings), label: undefined };
  }

  log(server: number, facts: object): void {
    const line = {
      time: formatTime(new Date(this.now), true),
      remoteAddress: '127.0.0.1',
      bytesReceived: 0,
      bytesSent: 0,
      jobId: undefined,
      remoteUser: undefined,
      method: undefined,
      clientId: undefined,
      fileName: undefined,
      seconds: this.chance(0.2) ? 3 : 0,
      status: 200,
      message: 'Success',
      ...facts,
    };
    appendFileSync(join(this.logs[server] ?? '', 'nph-webjob.log'), `${formatLogLine(line)}\n`);
  }

  step(): void {
    const kinds = [
      ...Array(6).fill(() => this.get()),
      ...Array(9).fill(() => this.put()),
      ...[() => this.rotate(), () => this.remove(), () => this.orphan(), () => this.noise(), () => this.jump()],
    ];
    for (let count = 0; count < 5; count++) this.pick(kinds)();
  }

  get(): void {
    this.now += 1000 * Math.floor(this.random() * 4000);
    const server = Math.floor(this.random() * SERVERS.length);
    const jobId = this.chance(0.05)
      ? undefined
      : `${SERVERS[server]}_${Math.floor(this.now / 1000)}_${String(10_000 + ++this.count)}`;
    const [clientId, command] = [this.pick(['client1', 'client_2', 'c3']), this.pick(['host.sh', 'ps.sh'])];
    const fileName = this.chance(0.2) ? `${command}.gpg` : command;
    const refused = this.chance(0.15);
    const facts = { jobId, clientId, fileName, remoteUser: clientId, method: 'GET', bytesSent: 19 };
    this.log(server, refused ? { ...facts, status: this.pick([404, 453]), message: 'no' } : facts);
    if (!refused && jobId !== undefined) this.jobs.push({ jobId, clientId, command });
  }

  put(): void {
    const job = this.pick(this.jobs);
    if (!job) return;
    this.now += 1000 * Math.floor(this.random() * 4000);
    const { jobId, clientId, command: fileName } = job;
    const facts = { jobId, clientId, fileName, remoteUser: clientId, method: 'PUT', bytesReceived: 602 };
    const server = Math.floor(this.random() * SERVERS.length);
    const name = this.nameOf(job, server);
    const status = this.chance(0.6) ? 200 : this.pick([456, 453, 507, 551]);
    if (status === 200) this.write(name, jobId, ['out', 'err', 'env', 'rdy']);
    else if ((status === 456 || status === 551) && !existsSync(join(this.its.site.incoming, `${name}.rdy`)))
      this.write(name, jobId, ['out']);
    this.log(server, { ...facts, status, message: 'x', seconds: 0 });
  }

  nameOf({ jobId, clientId, command }: { jobId: string; clientId: string; command: string }, server: number): string {
    const stamp = formatTime(new Date(this.now), true).replace(/\D/g, '');
    const values: Record<string, string> = {
      '%cid': clientId,
      '%cmd': command,
      '%jid': jobId,
      '%sid': SERVERS[server] ?? '',
      '%pid': String(20_000 + ++this.count),
      '%Y': stamp.slice(0, 4),
      '%m': stamp.slice(4, 6),
      '%d': stamp.slice(6, 8),
      '%H': stamp.slice(8, 10),
      '%M': stamp.slice(10, 12),
      '%S': stamp.slice(12, 14),
    };
    return this.format.replace(/%(?:cid|cmd|jid|sid|pid|[A-Za-z])/g, (token) => values[token] ?? '');
  }

  write(name: string, jobId: string, extensions: readonly string[]): void {
    const base = join(this.its.site.incoming, name);
    mkdirSync(join(base, '..'), { recursive: true });
    const contents: Record<string, string> = {
      out: `${this.random()}\n`,
      err: '',
      rdy: `Jid=${jobId}\n`,
      env: this.chance(0.1) ? '' : makeRecord({ Jid: jobId, KidStatus: this.pick(['0', '0', '3']) }),
    };
    const at = new Date(this.now);
    for (const extension of extensions) {
      // As the server does: another file replaces the old one.
      writeFileSync(`${base}.${extension}.tmp`, contents[extension] ?? '');
      renameSync(`${base}.${extension}.tmp`, `${base}.${extension}`);
      utimesSync(`${base}.${extension}`, at, at);
    }
  }

  orphan(): void {
    const job = { jobId: `lost_${++this.count}`, clientId: 'client1', command: 'host.sh' };
    this.write(this.nameOf(job, 0), job.jobId, ['out', 'err', 'env', 'rdy']);
  }

  /** An upload is removed by hand. */
  remove(): void {
    const all = readdirSync(this.its.site.incoming, { recursive: true }) as string[];
    const name = this.pick(all.filter((one) => one.endsWith('.rdy')).sort())?.slice(0, -4);
    if (name === undefined) return;
    for (const extension of ['out', 'err', 'env', 'rdy'])
      rmSync(join(this.its.site.incoming, `${name}.${extension}`), { force: true });
  }

  rotate(): void {
    const folder = this.pick(this.logs);
    const log = join(folder, 'nph-webjob.log');
    const old = readdirSync(folder).filter((name) => /^nph-webjob\.log\.\d+/.test(name));
    if (old.length > 3 && this.chance(0.5)) rmSync(join(folder, old.sort().at(-1) ?? ''));
    const name = `${log}.${90_000 - ++this.count}`;
    if (this.chance(0.5)) {
      renameSync(log, name);
      writeFileSync(log, '');
    } else {
      writeFileSync(`${name}.gz`, gzipSync(readFileSync(log)));
      writeFileSync(log, '');
    }
  }

  noise(): void {
    // No two are alike, because a log is identified by its beginning.
    appendFileSync(join(this.pick(this.logs), 'nph-webjob.log'), `this is no line of a log ${++this.count}\n`);
  }

  /** The clock is set, forwards or back. */
  jump(): void {
    const before = this.now;
    this.now = Math.min(Date.now(), this.now + (this.random() - 0.3) * 10 * 86_400_000);
    this.wentBack ||= this.now < before;
  }
}

const plain = (sums: Sums): unknown => {
  const totals = (one: Sums['all'] | ClientTotals): unknown => ({
    ...one,
    states: sorted(one.states),
    requests: 'requests' in one ? sorted(one.requests) : [],
    seenAt: one.seenAt?.toISOString(),
  });
  return {
    all: totals({ ...sums.all, seenAt: undefined }),
    clients: sorted(new Map([...sums.clients].map(([name, one]) => [name, totals(one)]))),
  };
};

const sorted = (map: ReadonlyMap<string, unknown>): unknown =>
  [...map].filter(([, value]) => value !== 0).sort(([a], [b]) => (a < b ? -1 : 1));

/** All results of the ledger for a site. */
export async function tell(site: Site): Promise<Record<string, unknown>> {
  const jobs: unknown[] = [];
  for await (const job of readJobs(site)) jobs.push(jobJson(site, job));
  const { all, clients, lastSeen, locker } = await readMeasures(site, 1000);
  const metrics = { all: plain({ all, clients: new Map() }), clients, lastSeen: sorted(new Map(lastSeen)) };
  return { jobs, clients: plain(await readSums(site)), metrics, locker };
}
