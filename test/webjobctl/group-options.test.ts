// A group of clients can be used wherever a glob can: in every option of webjobctl that takes one,
// found in the program's own list of options, so that none is forgotten.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { addCommand } from '../../scripts/site.ts';
import { type LockerSite, makeLockerSite, WEBJOBCTL } from '../support/locker-site.ts';
import { parseLines } from '../support/operator.ts';

interface CommandRow {
  name: string;
  options: { flags: string[]; value: string | null }[];
}

/** Clients read manifests, and do not know groups; the others take the id of one client. */
const WITHOUT_GLOBS = ['sign payload', 'sign verify', 'hold add', 'hold remove'];

let its: LockerSite;
let jobId: string;
const OUT = 'package';

before(async () => {
  its = makeLockerSite({ RequireUser: 'N', BatchCommand: 'batch' });
  for (const clientId of ['web-1', 'web-2', 'web-3', 'db-1']) {
    addCommand(its.site, clientId, 'list.sh', '#!/bin/sh\n');
    const ran = await its.run({ clientId, fileName: 'list.sh', out: `needle ${clientId}\n` });
    if (clientId === 'web-1') jobId = ran;
  }
  const key = join(its.site.root, 'custody.key');
  execFileSync('openssl', ['genpkey', '-algorithm', 'ed25519', '-out', key]);
  await its.webjobctl('custody', 'checkpoint', '--key', key);
  const folder = join(its.site.base, 'config', 'nph-webjob');
  mkdirSync(folder, { recursive: true });
  mkdirSync(join(its.site.base, 'dynamic'), { recursive: true });
  writeFileSync(join(folder, 'groups'), 'web = web-1 front\nfront = web-2\ndbs = db-*\n');
});
after(() => its.close());

/**
 * The arguments of each command before the option's value, and how to find the clients in its
 * output.
 */
const TRIES: Record<string, { words: () => string[]; told?: (lines: Record<string, unknown>[]) => unknown }> = {
  jobs: { words: () => [] },
  show: { words: () => [jobId] },
  diff: { words: () => [jobId, jobId] },
  latest: { words: () => ['list.sh'] },
  compare: { words: () => ['list.sh', '--no-diff'] },
  note: { words: () => [jobId, 'a note'], told: (lines) => lines.map(({ job }) => job) },
  search: { words: () => ['needle'] },
  clients: { words: () => [] },
  export: { words: () => [] },
  report: { words: () => ['--html', join(its.site.root, OUT)], told: (lines) => lines.map(({ jobs }) => jobs) },
  evidence: { words: () => ['--out', join(its.site.root, OUT)], told: (lines) => lines.map(({ jobs }) => jobs) },
  'custody prove': { words: () => [jobId] },
  'sign assignment': {
    words: () => ['list.sh', '--key', join(its.site.root, 'custody.key'), '-o', join(its.site.root, 'x.assignment')],
    told: (lines) => lines.map(({ clients }) => (clients as string[]).sort()),
  },
  'assign add': { words: () => ['list.sh'], told: (lines) => lines.map(({ clients }) => clients) },
};

/** The output of a command for these clients. */
async function ask(command: string, option: string, who: string): Promise<unknown> {
  const { words, told = (lines: unknown) => lines } = TRIES[command] ?? { words: () => [] };
  rmSync(join(its.site.root, OUT), { recursive: true, force: true });
  const { exitCode, text, stderr } = await its.webjobctl('--json', ...command.split(' '), ...words(), option, who);
  // diff has nothing to compare.
  assert.ok([0, 1, 5].includes(exitCode ?? -1), `${command} ${option} ${who}: ${exitCode}: ${stderr}`);
  return { exitCode, told: told(parseLines(text)) };
}

describe('an option that takes clients', () => {
  const { stdout } = spawnSync(process.execPath, [WEBJOBCTL, 'completion', '--json'], { encoding: 'utf8' });
  const rows = parseLines<CommandRow>(stdout);
  const options = rows.flatMap(({ name, options }) =>
    options.flatMap(({ flags, value }): [string, string][] => {
      const takes = value === 'CLIENT' && (flags.includes('--client') || flags.includes('--to'));
      return takes && !WITHOUT_GLOBS.includes(name) ? [[name, flags.at(-1) ?? '']] : [];
    }),
  );

  it('is one of those that are tested here', () => {
    assert.deepEqual([...new Set(options.map(([name]) => name))].sort(), Object.keys(TRIES).sort());
  });

  for (const [name, option] of options)
    it(`accepts a group, and several with commas: ${name} ${option}`, async () => {
      const group = await ask(name, option, 'web');
      assert.deepEqual(group, await ask(name, option, 'web-1,web-2'));
      assert.deepEqual(group, await ask(name, option, 'front,web-1'));
      assert.notDeepEqual(group, await ask(name, option, 'dbs'));
    });

  it('still reads other values as globs', async () => {
    const clients = async (who: string): Promise<unknown[]> =>
      (await its.readJson<{ client: string }>('jobs', '--client', who)).map(({ client }) => client).sort();
    assert.deepEqual(await clients('web-?'), ['web-1', 'web-2', 'web-3']);
    assert.deepEqual(await clients('web-3'), ['web-3']);
    assert.deepEqual(await clients('web-3,d*'), ['db-1', 'web-3']);
    assert.deepEqual(await clients('*'), ['db-1', 'web-1', 'web-2', 'web-3']);
  });

  it('sets and ends a hold for each client of a group, and for none of a group with a glob', async () => {
    const hold = async (verb: string, who: string) =>
      await its.webjobctl('hold', verb, '--client', who, '--reason', 'case 4711');
    const held = async (): Promise<string[]> =>
      (await its.readJson<{ id: string }>('hold', 'list')).map(({ id }) => id).sort();
    await hold('add', 'web-1');
    assert.equal((await hold('add', 'web')).exitCode, 0);
    assert.deepEqual(await held(), ['web-1', 'web-2']);
    assert.equal((await hold('add', 'web')).exitCode, 1, 'all of them are on hold');
    const { exitCode, stderr } = await hold('add', 'dbs');
    assert.equal(exitCode, 2);
    assert.match(stderr, /the group dbs contains the glob db-\*, and client ids are required/);
    assert.equal((await hold('remove', 'front')).exitCode, 0);
    assert.deepEqual(await held(), ['web-1']);
    assert.equal((await hold('remove', 'web')).exitCode, 0);
    assert.equal((await hold('remove', 'web')).exitCode, 1);
  });

  it('reports the malformed line of the groups', async () => {
    const path = join(its.site.base, 'config', 'nph-webjob', 'groups');
    writeFileSync(path, '# good\nweb = /\n');
    const { exitCode, stderr } = await its.webjobctl('jobs', '--client', 'web');
    assert.deepEqual([exitCode, /groups cannot be read: line 2: \//.test(stderr)], [4, true], stderr);
    assert.equal((await its.webjobctl('jobs')).exitCode, 0, 'who asks for no client needs no groups');
  });
});
