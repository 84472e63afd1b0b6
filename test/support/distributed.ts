// npm run test:distributed: two servers of one locker on a GlusterFS with three replicas, each with
// a mount of its own, and webjobctl at a third mount. Bricks, mounts and a server are killed under
// load: every upload answered with 200 is there, byte for byte.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeSite, type Site } from '../../scripts/site.ts';
import { findWebUser } from '../../scripts/web-user.ts';
import type { Apache } from './deployment-httpd.ts';
import { startNode } from './deployment-nodes.ts';
import { ask, getHead, putHead } from './deployment-wire.ts';
import { GLUSTER, Gluster } from './gluster.ts';
import { runWebjobctl } from './operator.ts';
import type { StrictAnswer } from './strict-client.ts';
import { many } from './thorough.ts';
import { waitFor } from './wait.ts';

const CLIENTS = 4;
/** How many uploads are acknowledged between two kills. */
const BETWEEN = many(200, 25);
const NODES = ['node_1', 'node_2'] as const;
/** How long the cache of a FUSE mount may be behind. */
const CACHE_MS = 2_000;
const DAY_MS = 86_400_000;

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

interface Sent {
  jobId: string;
  sha256: string;
}

describe('a locker on GlusterFS', { skip: !GLUSTER && 'only in npm run test:distributed' }, () => {
  let root: string;
  let site: Site;
  let gluster: Gluster;
  const bases = new Map<string, string>();
  const nodes = new Map<string, Apache>();
  const acknowledged: Sent[] = [];
  const refused = new Map<string, number>();
  let operatorFile: string;

  const logfilesOf = (name: string): string => join(site.root, 'logs', name);
  const incomingOf = (name: string): string => join(bases.get(name) ?? '', 'incoming');

  before(async () => {
    root = mkdtempSync('/tmp/webjob-gluster-');
    chmodSync(root, 0o755);
    site = makeSite();
    gluster = await Gluster.start(root);
    for (const name of [...NODES, 'operator']) bases.set(name, join(await gluster.mount(name), 'integrity'));
    execFileSync('cp', ['-a', site.base, bases.get('operator') ?? '']);
    for (const name of NODES) await startAgain(name);
    operatorFile = join(site.root, 'operator.cfg');
    writeFileSync(
      operatorFile,
      `BaseDirectory=${bases.get('operator')}
LogfilesDirectory=${logfilesOf('node_1')}
ServerId=node_1
SiteServers=node_2:${logfilesOf('node_2')}
PutNameFormat=%cid_%Y%m%d%H%M%S_%sid_%pid_%cmd
`,
    );
  });
  after(async () => {
    for (const node of nodes.values()) await node.stop();
    gluster?.stop();
    site?.remove();
  });

  async function startAgain(name: string): Promise<void> {
    const port = nodes.get(name)?.ports[0];
    const logfiles = logfilesOf(name);
    const web = findWebUser();
    mkdirSync(logfiles, { recursive: true });
    if (web) chownSync(logfiles, web.uid, web.gid);
    const base = bases.get(name) ?? '';
    nodes.set(name, await startNode(site, name, { settings: '', base, logfiles, port }));
  }

  async function send(name: string, request: string): Promise<StrictAnswer | Error> {
    return await ask(nodes.get(name)?.ports[0] ?? 0, request).catch((error: Error) => error);
  }

  /** One GET and PUT; a request not answered with 200 is counted, and not sent again. */
  async function doJob(name: string): Promise<boolean> {
    const got = await send(name, getHead());
    if (got instanceof Error || got.status !== 200) return refuse(got);
    const jobId = got.headers.get('job-id') ?? '';
    const body = randomBytes(20_000).toString('hex');
    const put = await send(name, putHead(body.length, { headers: [`Job-Id: ${jobId}`] }) + body);
    if (put instanceof Error || put.status !== 200) return refuse(put);
    acknowledged.push({ jobId, sha256: sha256(Buffer.from(body)) });
    return true;
  }

  function refuse(answer: StrictAnswer | Error): false {
    const key = answer instanceof Error ? 'no answer' : String(answer.status);
    refused.set(key, (refused.get(key) ?? 0) + 1);
    return false;
  }

  /** The digest of stdout by job id, of all that is announced in a mount. */
  function readStored(name: string): Map<string, string> {
    const folder = incomingOf(name);
    const groups = readdirSync(folder).filter((file) => file.endsWith('.rdy'));
    return new Map(
      groups.map((file) => {
        const jobId = /^Jid=(.+)$/m.exec(readFileSync(join(folder, file), 'utf8'))?.[1] ?? file;
        return [jobId, sha256(readFileSync(join(folder, file.replace(/rdy$/, 'out'))))];
      }),
    );
  }

  function assertNothingLost(): void {
    const stored = readStored('operator');
    for (const { jobId, sha256: digest } of acknowledged) assert.equal(stored.get(jobId), digest, jobId);
  }

  const webjobctl = (...args: string[]) => runWebjobctl(['--config', operatorFile, ...args]);

  /** Files of uploads that are not announced: those that a killed server was about to store. */
  function listIncomplete(): string[] {
    const stored = readdirSync(incomingOf('operator'));
    const whole = new Set(stored.filter((name) => name.endsWith('.rdy')).map((name) => name.slice(0, -4)));
    return stored.filter((name) => !whole.has(name.slice(0, -4)));
  }

  async function succeed(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await webjobctl(...args);
    assert.equal(code, 0, `${args.join(' ')}: ${stdout}${stderr}`);
    return stdout;
  }

  it('shows at every node what another has answered 200, within the time of a cache', async (t) => {
    let slowest = 0;
    for (let round = 0; round < 10; round++) {
      const [here, there] = round % 2 ? (['node_1', 'node_2'] as const) : (['node_2', 'node_1'] as const);
      assert.ok(await doJob(here));
      const { jobId, sha256: digest } = acknowledged.at(-1) as Sent;
      const sentAt = performance.now();
      await waitFor('the upload at the other node', () => readStored(there).has(jobId));
      slowest = Math.max(slowest, performance.now() - sentAt);
      assert.equal(readStored(there).get(jobId), digest, 'it is whole when it can be seen');
    }
    t.diagnostic(`seen after ${slowest.toFixed(0)} ms at most`);
    assert.ok(slowest < CACHE_MS);
  });

  it('serves at every node a program that was changed at another, never half of each', async () => {
    const programs = [1, 2].map((number) => `#!/bin/sh\n# ${String(number).repeat(number * 30_000)}\n`);
    const path = join(bases.get('operator') ?? '', 'profiles', 'client1', 'host.sh');
    for (const program of [...programs, ...programs]) {
      writeFileSync(`${path}.new`, program, { mode: 0o644 });
      execFileSync('mv', [`${path}.new`, path]);
      const changedAt = Date.now();
      for (const seen = new Set<string>(); seen.size < NODES.length; await sleep(20)) {
        assert.ok(Date.now() < changedAt + 10 * CACHE_MS, 'an old program is served');
        for (const name of NODES) {
          const answer = await send(name, getHead());
          assert.ok(!(answer instanceof Error) && answer.status === 200, String(answer));
          const text = answer.body.toString();
          assert.ok(text === '#!/bin/sh\nhostname\n' || programs.includes(text), 'a mixture of two programs');
          if (text === program) seen.add(name);
        }
      }
    }
  });

  it('loses nothing while a brick, a mount and a server are killed and come back', async (t) => {
    let isOver = false;
    const clients = Array.from({ length: CLIENTS }, async (_, client) => {
      for (let turn = client; !isOver; turn++) if (!(await doJob(NODES[turn % 2] as string))) await sleep(50);
    });
    const more = async (): Promise<void> => {
      const goal = acknowledged.length + BETWEEN;
      await waitFor(`${BETWEEN} more uploads`, () => acknowledged.length >= goal);
    };
    try {
      await more();
      gluster.killBrick(2);
      await more();
      gluster.startBricks();
      await more();
      gluster.killMount('node_1');
      await more();
      await gluster.mountAgain('node_1');
      await more();
      await nodes.get('node_2')?.kill();
      await more();
      await startAgain('node_2');
      await more();
    } finally {
      isOver = true;
      await Promise.all(clients);
    }
    await gluster.untilRepaired();
    const told = [...refused].map(([key, count]) => `${count} of ${key}`);
    t.diagnostic(`${acknowledged.length} acknowledged, refused: ${told.join(', ')}`);
    assertNothingLost();
  });

  it('refuses uploads while too few bricks are there, and takes them when they are back', async () => {
    gluster.killBrick(1);
    gluster.killBrick(3);
    const before = acknowledged.length;
    for (const name of NODES) await doJob(name);
    assert.equal(acknowledged.length, before, 'an upload was acknowledged without a quorum');
    gluster.startBricks();
    for (const name of NODES) await waitFor(`an upload through ${name}`, () => doJob(name));
    assertNothingLost();
  });

  it('is verified at a third mount, the records of both servers together', async () => {
    const summary = JSON.parse(await succeed('--json', 'verify'));
    // Uploads that were stored and not acknowledged are verified too.
    assert.ok(summary.groups >= acknowledged.length, JSON.stringify(summary));
  });

  it('is read, packed and pruned by webjobctl at a third mount', async () => {
    const { jobId } = acknowledged[0] as Sent;
    assert.match(await succeed('show', jobId), new RegExp(jobId));
    const held = await webjobctl('hold', 'add', '--reason', 'case 7', '--job', jobId);
    assert.equal(held.code, 0, held.stderr);
    const folder = incomingOf('operator');
    const old = new Date(Date.now() - 3 * DAY_MS);
    const aged = acknowledged.slice(1, 41).map(({ jobId }) => jobId);
    for (const file of readdirSync(folder).filter((name) => name.endsWith('.rdy')))
      if (aged.includes(readFileSync(join(folder, file), 'utf8').slice(4, -1)))
        utimesSync(join(folder, file), old, old);
    await succeed('pack', '--older-than', '1d');
    assert.equal(readStored('operator').size, readStored('node_1').size);
    for (const packed of aged) assert.ok(!readStored('operator').has(packed), packed);
    await succeed('verify');
    for (const packed of [aged[0], aged.at(-1)])
      assert.match(await succeed('show', packed as string), /^Archived in: /m);
    assert.match(await succeed('jobs', '--limit', '5'), /node_[12]_/);
    await succeed('metrics', '--textfile', join(site.root, 'webjob.prom'));
    assert.match((await webjobctl('configtest')).stdout, /IncomingDirectory is on a FUSE file system/);
    await succeed('prune', '--older-than', '1s', '--yes');
    assert.deepEqual([...readStored('node_2').keys()], [jobId], 'the upload on hold stays');
    await succeed('verify');
  });

  it('refuses an upload over the quota of the volume, and keeps nothing of it', async () => {
    gluster.volume('quota', 'enable');
    gluster.volume('quota', 'limit-usage', '/', '1MB');
    const filler = join(bases.get('operator') ?? '', 'filler');
    await waitFor('the quota', () => !tryTo(() => writeFileSync(filler, randomBytes(100_000), { flag: 'a' })));
    const before = new Map(refused);
    const incomplete = listIncomplete();
    for (const name of NODES) assert.equal(await doJob(name), false, `${name} takes more than the quota`);
    assert.equal(refused.get('507'), (before.get('507') ?? 0) + NODES.length, [...refused].join(' '));
    rmSync(filler, { force: true });
    gluster.volume('quota', 'disable');
    await waitFor('the end of the quota', () => doJob('node_1'));
    await succeed('verify');
    assert.deepEqual(listIncomplete(), incomplete);
  });
});

function tryTo(act: () => void): boolean {
  try {
    act();
    return true;
  } catch {
    return false;
  }
}
