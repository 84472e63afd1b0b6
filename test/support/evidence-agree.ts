// Makes random sites, and compares what verify finds in each with its report and with show: `node
// evidence-agree.ts SEED SITES` prints one JSON value with the disagreements for each site. Sites
// have several servers, archives, holds, removals, refused and repeated uploads, clocks that were
// set, and tampering.
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeField, formatLogLine, formatTime } from 'webjob-protocol';
import { verifyShown } from '../../admin/jobs/verification.ts';
import { makeProgram } from '../../admin/program.ts';
import { Pages } from '../../admin/report/pages.ts';
import { summarize } from '../../admin/report/summary.ts';
import { writeReport } from '../../admin/report/write.ts';
import { joinSites } from '../../admin/site/evidence.ts';
import { readSettings } from '../../cgi/settings.ts';
import { Evidence } from '../../evidence/evidence.ts';
import { verifySite } from '../../evidence/verify.ts';
import { readJobs } from '../../ledger/jobs.ts';
import type { Site } from '../../ledger/site.ts';
import { serversOf } from '../../ledger/site.ts';
import { readOpinions } from './evidence-site.ts';
import { randomNumbers } from './locker-kills.ts';
import { plantGroup } from './verify-site.ts';

const [seed = '1', sites = '1'] = process.argv.slice(2);
const SERVERS = ['server_2', 'server_10', 'a', 'Z'];
const NAMES = ['one', 'two', 'three', 'deep/four', 'deep/five', 'six'];
const DAY_SECONDS = 86_400;
Object.assign(globalThis, { WEBJOB_VERSION: 'test' });
const print = process.stdout.write.bind(process.stdout);
process.stdout.write = () => true;
process.stderr.write = () => true;

let random = randomNumbers(0);
const pick = (count: number): number => Math.floor(random() * count);
const from = <Type>(values: readonly Type[]): Type => values[pick(values.length)] as Type;
const chance = (part: number): boolean => random() < part;

interface Made {
  root: string;
  incoming: string;
  logs: string;
  config: string;
  site: Site;
}

function makeSite(): Made {
  const root = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'webjob-agree-'));
  const [incoming, logs, config] = [join(root, 'incoming'), join(root, 'logfiles'), join(root, 'nph-webjob.cfg')];
  for (const folder of [incoming, logs]) mkdirSync(folder, { mode: 0o755 });
  writeFileSync(join(logs, 'nph-webjob.log'), '');
  const limit = `CustodySegmentLimit=${from([1, 900, 2500, 67108864])}`;
  writeFileSync(config, `BaseDirectory=${root}\nServerId=${from(SERVERS)}\nPutNameFormat=%cid_%cmd\n${limit}\n`);
  const { settings } = readSettings(config);
  return {
    root,
    incoming,
    logs,
    config,
    site: { propertiesFile: config, settings, servers: serversOf(settings), label: undefined },
  };
}

/** Plants an upload that a server accepts or refuses. */
function put(made: Made, count: number): void {
  const [name, serverId] = [from(NAMES), from(SERVERS)];
  const jobId = `${serverId}_${1_795_000_000 + pick(3)}_${String(count).padStart(5, '0')}`;
  const time = new Date(Date.now() + (chance(0.2) ? (pick(7200) - 3600) * 1000 : 0));
  const outs = ['', 'out\n', 'x'.repeat(pick(70_000)), Buffer.from([0, 1, 2, pick(256)])];
  let status = 200;
  try {
    plantGroup({
      incomingDirectory: made.incoming,
      logfilesDirectory: made.logs,
      name,
      jobId,
      serverId,
      out: from(outs),
      err: chance(0.5) ? '' : 'err',
      overwrite: chance(0.6),
      segmentLimit: made.site.settings.custodySegmentLimit,
      custody: chance(0.1) ? (false as const) : { time },
      hashType: from(['MD5', 'SHA256', 'SHA1']),
      ...(chance(0.15) && { changeEnv: () => from(['', 'nothing\n', `A=${'b'.repeat(90_000)}\n`]) }),
    });
  } catch (error) {
    if ((error as { kind?: string }).kind !== 'exists') throw error;
    status = 451;
  }
  if (chance(0.4)) age(made, name, pick(10));
  if (chance(0.7)) log(made, jobId, name, status);
}

function log({ logs }: Made, jobId: string, name: string, status: number): void {
  const [time, fileName] = [formatTime(new Date(), false), name.replaceAll('/', '_')];
  const facts = { time, jobId, remoteUser: 'client1', remoteAddress: '127.0.0.1', method: 'PUT', clientId: 'client1' };
  const line = { ...facts, fileName, bytesReceived: 10, bytesSent: 0, seconds: 0, status, message: 'Success' };
  appendFileSync(join(logs, 'nph-webjob.log'), `${formatLogLine(line).trimEnd()}\n`);
}

function age({ incoming }: Made, name: string, days: number): void {
  const then = Date.now() / 1000 - days * DAY_SECONDS;
  for (const extension of ['out', 'err', 'env', 'rdy']) {
    const path = join(incoming, `${name}.${extension}`);
    if (existsSync(path)) utimesSync(path, then, then);
  }
}

async function webjobctl({ config }: Made, ...words: string[]): Promise<void> {
  const all = ['--config', config, ...words];
  try {
    await (await makeProgram(all)).parseAsync(all, { from: 'user' });
  } catch {
    // What it refuses changes nothing.
  }
  process.exitCode = 0;
}

async function keep(made: Made): Promise<void> {
  const packs = existsSync(join(made.root, 'packed')) ? readdirSync(join(made.root, 'packed')) : [];
  const [pack = ''] = packs.filter((name) => name.endsWith('.jsonl')).map((name) => name.slice(0, -6));
  const options = [
    ['prune', '--older-than', `${1 + pick(9)}d`, '--yes'],
    ['pack', '--older-than', `${1 + pick(9)}d`],
    ['unpack', pack],
    ['hold', 'add', '--client', 'client1', '--reason', 'test'],
    ['hold', 'remove', '--client', 'client1', '--reason', 'test'],
    ['custody', 'adopt', '--reason', 'test'],
    ['verify'],
  ];
  await webjobctl(made, ...from(options));
}

/** Tampering. */
function tamper({ root, incoming, logs }: Made): void {
  const folders = [incoming, incoming, logs, join(root, 'packed')].filter(existsSync);
  const folder = from(folders);
  const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.name.endsWith('.log'))
    .map((entry) => join(entry.parentPath, entry.name));
  if (files.length === 0) return;
  const path = from(files);
  const bytes = readFileSync(path);
  const [kind, at] = [pick(4), pick(Math.max(1, bytes.length))];
  if (kind === 0) rmSync(path);
  else if (kind === 1) truncateSync(path, at);
  else if (kind === 2 && bytes.length > 0) writeFileSync(path, bytes.fill((bytes[at] ?? 0) ^ 1, at, at + 1));
  else writeFileSync(path, Buffer.concat([bytes, Buffer.from('x')]));
}

/**
 * The uploads in the locker and in archives in which verify finds something, and those that the
 * report marks.
 */
async function compare(made: Made): Promise<{ disagreements: string[]; uploads: number; bad: number; packed: number }> {
  const { site, root } = made;
  const [joined] = joinSites([site]);
  if (!joined) throw new Error('no site');
  const findings = [...verifySite({ ...joined, contents: true })].map(({ kind, place }) => ({ kind, place }));
  const folder = join(root, 'report');
  mkdirSync(folder);
  const evidence = new Evidence(joined);
  const now = new Date();
  const since = new Date(0);
  const summary = await summarize(readJobs(site), { since, now, site });
  const frame = { siteName: 'test', madeAt: '', version: 'test' };
  await writeReport(folder, new Pages(folder, undefined, frame, () => undefined), {
    summary,
    now,
    site,
    evidence,
    scope: { since, silentSeconds: 1, clock: 'GMT' },
    readJobs: (order) => readJobs(site, { since }, undefined, order),
    isListed: () => true,
  });
  const lost = findings.filter(({ kind }) => kind === 'group-missing');
  const missing = new Set(lost.map(({ place }) => encodeField(evidence.records.find(place)?.jobId)));
  evidence.close();
  const disagreements: string[] = [];
  let [uploadCount, bad, packedCount] = [0, 0, 0];
  const opinions = readOpinions(folder);
  for await (const job of readJobs(site)) {
    const { group, packed, uploads, jobId } = job;
    const name = (group ?? packed)?.name;
    if (name === undefined) continue;
    const said = opinions.get(packed && !group ? `${packed.pack}: ${name}` : name);
    const shown = verifyShown(site, job, 0);
    if (shown?.words !== said?.words)
      disagreements.push(`${name}: show ${JSON.stringify(shown)}, report ${said?.look} ${said?.words}`);
    uploadCount++;
    if (!group) packedCount++;
    if (said?.look === 'bad') bad++;
    const own = uploads.map((upload) => upload.name);
    const found = findings.filter(({ kind, place }) => {
      if (packed && !group)
        return place.startsWith(`packed/${packed.pack}.`) || place.startsWith(`packed/${packed.pack}: ${name}.`);
      return (
        kind !== 'group-missing' && [name, ...own].some((one) => place === one || place.replace(/\.\w+$/, '') === one)
      );
    });
    const isMissing = jobId !== undefined && missing.has(jobId);
    if ((said?.look === 'bad') !== (found.length > 0 || isMissing))
      disagreements.push(`${name}: verify ${JSON.stringify(found)}, report ${said?.look} ${said?.words}`);
  }
  return { disagreements, uploads: uploadCount, bad, packed: packedCount };
}

for (let number = 0; number < Number(sites); number++) {
  const own = Number(seed) + number;
  random = randomNumbers(own);
  const made = makeSite();
  try {
    const steps = 8 + pick(18);
    for (let step = 0; step < steps; step++) {
      if (chance(0.65)) put(made, step);
      else await keep(made);
    }
    const before = await compare(made);
    rmSync(join(made.root, 'report'), { recursive: true });
    for (let change = pick(4); change > 0; change--) tamper(made);
    const after = await compare(made);
    print(`${JSON.stringify({ seed: own, before, after })}\n`);
  } finally {
    rmSync(made.root, { recursive: true });
  }
}
