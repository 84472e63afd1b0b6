// docs/guide/custody.md is correct: its commands find nothing at an intact site, and detect each
// change.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { listCustodyFiles } from '../../cgi/locker/index.ts';
import { configure, makeSite, type Site } from '../../scripts/site.ts';
import { runBare } from '../support/bare.ts';
import { custodyOf } from '../support/custody-record.ts';
import { verifyAs } from '../support/evidence-site.ts';
import { setAge } from '../support/keep-site.ts';
import { bareOptions, makeUpload, rawPut, statusOf } from '../support/locker-upload.ts';
import { runWebjobctl } from '../support/operator.ts';
import { plantGroup } from '../support/verify-site.ts';

const project = join(import.meta.dirname, '..', '..');
const page = readFileSync(join(project, 'docs/guide/custody.md'), 'utf8');
const BLOCKS = [...page.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block = '']) => block);
/** A few records. */
const SEGMENT_LIMIT = 1000;
const NAMES = ['keys', 'verify', 'signature', 'beginning', 'chain', 'segments', 'last', 'locker'] as const;

describe('docs/guide/custody.md', () => {
  let site: Site;
  let folder: string;
  before(async () => {
    site = makeSite({ settings: { PutNameFormat: '%cid_%cmd' } });
    folder = join(site.root, 'elsewhere');
    mkdirSync(join(folder, 'bin'), { recursive: true });
    // The built program stands for the installed one.
    writeFileSync(
      join(folder, 'bin', 'webjobctl'),
      `#!/bin/sh\nexec "${process.execPath}" "${join(project, 'dist', 'webjobctl')}" "$@"\n`,
    );
    chmodSync(join(folder, 'bin', 'webjobctl'), 0o755);
    for (const name of ['a', 'b', 'c', 'd']) {
      const { stdout } = await runBare(rawPut(makeUpload(name, { out: 3000, err: 10, env: 100 })), bareOptions(site));
      assert.equal(statusOf(stdout), 200);
    }
  });
  after(() => site.remove());

  /** Runs a block of the page. */
  function run(name: (typeof NAMES)[number]): { status: number | null; said: string } {
    const block = (BLOCKS[NAMES.indexOf(name)] ?? '').replaceAll('/var/webjob', site.base);
    const env = {
      ...process.env,
      PATH: `${join(folder, 'bin')}${delimiter}${process.env.PATH}`,
      WEBJOB_PROPERTIES_FILE: site.propertiesFile,
    };
    const { status, stdout, stderr } = spawnSync('/bin/sh', ['-ec', block], { cwd: folder, env, encoding: 'utf8' });
    return { status, said: `${stdout}${stderr}` };
  }

  it('has the commands that are tested here, the first of which makes keys and a checkpoint', () => {
    assert.equal(BLOCKS.length, NAMES.length);
    assert.deepEqual(run('keys'), { status: 0, said: '' });
    assert.match(
      readFileSync(join(folder, 'checkpoints'), 'utf8'),
      /^[^\n]+\/webjob\/server_1\n\d+\n[^\n]+\n\n— [^\n]+\n$/,
    );
  });

  const changeRecord = (pattern: RegExp | string, by: string): (() => void) => {
    return () => {
      const text = readFileSync(custodyOf(site), 'latin1');
      writeFileSync(custodyOf(site), text.replace(pattern, by), 'latin1');
      assert.notEqual(readFileSync(custodyOf(site), 'latin1'), text);
    };
  };

  const steps: { name: (typeof NAMES)[number]; good: RegExp; bad: RegExp; change: () => void }[] = [
    {
      name: 'verify',
      good: /^webjobctl: 4 uploads.* 0 findings\n$/,
      bad: /^checkpoint-changed/m,
      change: changeRecord('"fileName":"b"', '"fileName":"x"'),
    },
    {
      name: 'signature',
      good: /Signature Verified Successfully/,
      bad: /Signature Verification Failure/,
      change: () => {
        const path = join(folder, 'checkpoints');
        writeFileSync(path, readFileSync(path, 'utf8').replace(/\n(\d+)\n/, '\n1$1\n'));
      },
    },
    {
      name: 'beginning',
      good: /^the record begins with these entries\n$/,
      bad: /^$/,
      change: changeRecord('"fileName":"b"', '"fileName":"x"'),
    },
    {
      name: 'chain',
      good: /^$/,
      bad: /^\S+: the bytes before byte \d+ have changed\n$/,
      change: changeRecord('"fileName":"b"', '"fileName":"x"'),
    },
    { name: 'last', good: /^last: OK\n$/, bad: /FAILED/, change: changeRecord('"fileName":"d"', '"fileName":"x"') },
    {
      name: 'locker',
      good: /^$/,
      bad: /client1_c: not what was deposited/,
      change: () => writeFileSync(join(site.incoming, 'client1_c.out'), 'changed'),
    },
  ];
  for (const { name, good, bad, change } of steps) {
    it(`accepts what is unchanged and reports what was changed: ${name}`, () => {
      const first = run(name);
      assert.deepEqual([first.status, good.test(first.said)], [0, true], first.said);
      const paths = [custodyOf(site), join(site.incoming, 'client1_c.out'), join(folder, 'checkpoints')];
      const kept = paths.map((path) => [path, readFileSync(path)] as const);
      change();
      const second = run(name);
      for (const [path, bytes] of kept) writeFileSync(path, bytes);
      assert.match(second.said, bad);
      assert.doesNotMatch(second.said, good);
    });
  }

  it('finds only a change after holds, packs, prunes, repeated uploads and a second server', async () => {
    const webjobctl = async (...args: string[]): Promise<void> => {
      const { code, stderr } = await runWebjobctl(['--config', site.propertiesFile, ...args]);
      assert.equal(code, 0, stderr);
    };
    const logfilesDirectory = join(site.base, 'logfiles');
    const plant = (name: string, out: string, serverId = 'server_1'): void =>
      plantGroup({
        incomingDirectory: site.incoming,
        logfilesDirectory,
        name,
        out,
        err: '',
        serverId,
        overwrite: true,
        segmentLimit: SEGMENT_LIMIT,
      });
    const age = (name: string, days: number): void => setAge(site, name, days);
    const ALL = ['signature', 'beginning', 'chain', 'segments', 'last', 'locker'] as const;
    /** The block that compares the locker with the records, run between other blocks. */
    const check = async (
      state: string,
      findings: string[] = [],
      names: readonly (typeof NAMES)[number][] = ['locker'],
    ) => {
      for (const name of names) {
        const { status, said } = run(name);
        const good = steps.find((step) => step.name === name)?.good ?? /^$/;
        assert.ok(status === 0 && good.test(said), `${state}: ${name}: ${said}`);
      }
      assert.deepEqual(await verifyAs([site.propertiesFile]), findings, state);
    };
    configure(site, { PutNameFormat: '%cid_%cmd', CustodySegmentLimit: String(SEGMENT_LIMIT) });
    run('keys');
    await webjobctl('hold', 'add', '--client', 'nobody', '--reason', 'a test');
    // The last line of the checkpoints is now that of webjobctl's record.
    run('keys');
    await check('a hold', [], ALL);
    for (const out of ['first', 'second']) plant('client1_again', out);
    plant('client1_theirs', 'theirs', 'server_10');
    plant('client1_theirs', 'ours', 'server_2');
    await check('repeated uploads');
    for (const name of ['client1_a', 'client1_again', 'deep/client1_packed']) {
      if (name.startsWith('deep')) plant(name, 'packed');
      age(name, 10);
    }
    await webjobctl('pack', '--older-than', '5d');
    await check('a pack');
    plant('client1_again', 'third');
    await check('a name that comes again', ['differing client1_again']);
    age('client1_again', 20);
    await webjobctl('prune', '--older-than', '15d', '--yes');
    await check('a prune');
    const [pack = ''] = readdirSync(join(site.base, 'packed')).filter((name) => name.endsWith('.jsonl'));
    await webjobctl('unpack', pack.slice(0, -6));
    await check('an unpack');
    for (const name of ['client1_a', 'client1_again']) age(name, 12);
    await webjobctl('pack', '--older-than', '11d');
    await check('a second pack');
    rmSync(join(site.incoming, 'client1_theirs.rdy'));
    assert.match(run('locker').said, /^client1_theirs: neither in the locker nor in an archive, and not pruned\n$/);
    plant('client1_theirs', 'ours', 'server_2');
    writeFileSync(join(site.incoming, 'client1_theirs.err'), 'changed');
    assert.match(run('locker').said, /client1_theirs: not what was deposited/);
    plant('client1_theirs', 'ours', 'server_2');
    await check('all is well again', [], ALL);
    await checkSegments();
  });

  /** For the site whose records have continued in several files. */
  async function checkSegments(): Promise<void> {
    const segments = listCustodyFiles(join(site.base, 'logfiles')).filter(({ serverId }) => serverId === 'server_1');
    const [one = '', other = '', third = ''] = segments.map(({ file }) => join(site.base, 'logfiles', file));
    assert.ok(segments.length > 2, `${segments.length} segments`);
    assert.match(run('beginning').said, /begins with these entries/);
    const texts = [one, other, third].map((path) => readFileSync(path, 'latin1'));
    const [first = '', second = '', last = ''] = texts;
    const changes: [string, string | undefined, RegExp][] = [
      [one, first.replace('"event":"seal"', '"event":"SEAL"'), /the end of \S+ has changed/],
      [other, last, /000002\.jsonl does not follow/],
      [other, second.replace(/^.*\n/, ''), /000002\.jsonl does not follow/],
      [other, undefined, /000003\.jsonl does not follow nph-webjob-custody\.server_1\.jsonl/],
    ];
    for (const [path, text, bad] of changes) {
      if (text === undefined) rmSync(path);
      else writeFileSync(path, text, 'latin1');
      assert.match(run('segments').said, bad);
      assert.ok((await verifyAs([site.propertiesFile])).some((line) => /^custody-(?:broken|missing) /.test(line)));
      for (const [index, file] of [one, other, third].entries()) writeFileSync(file, texts[index] ?? '', 'latin1');
    }
  }

  it('finds records that were moved, and a truncated file', () => {
    const path = custodyOf(site);
    const whole = readFileSync(path, 'latin1');
    const [a, b, c, d] = whole.split('\n');
    for (const lines of [
      [a, c, b, d],
      [a, c, d],
      [b, c, d],
      [a, b, b, c, d],
    ]) {
      writeFileSync(path, lines.map((line) => `${line}\n`).join(''), 'latin1');
      assert.match(run('chain').said, /byte/);
    }
    writeFileSync(path, `${[a, b, c].join('\n')}\n`, 'latin1');
    assert.equal(run('chain').said, '');
    assert.equal(run('beginning').said, '');
    writeFileSync(path, whole, 'latin1');
    assert.match(run('beginning').said, /begins with these entries/);
  });
});
