// webjobctl verify at a real site: every kind of finding is found and reported correctly, nothing
// is reported for an intact or busy site, and nothing in the output controls a terminal.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, beforeEach, describe, it } from 'node:test';
import { appendCustody } from '../../cgi/locker/index.ts';
import type { Finding } from '../../evidence/finding.ts';
import { type Scope, verifySite } from '../../evidence/verify.ts';
import { configure, makeSite, type Site } from '../../scripts/site.ts';
import { runBare } from '../support/bare.ts';
import { custodyOf } from '../support/custody-record.ts';
import { startCommandSite } from '../support/hooks-site.ts';
import { age, bareOptions, makeUpload, rawPut, statusOf } from '../support/locker-upload.ts';
import { parseLines, runWebjobctl } from '../support/operator.ts';
import { findWebUser } from '../support/tree.ts';
import { EXTENSIONS_KEPT, type Planted, plantGroup } from '../support/verify-site.ts';

type Line = Finding & { groups: number; bytes: number; findings: number; inProgress: number; older: number };

let site: Site;
beforeEach(() => {
  site = makeSite({ settings: { PutNameFormat: '%cid_%cmd' } });
});
afterEach(() => site.remove());
const at = (name: string): string => join(site.incoming, name);

function plant(name: string, more: Partial<Planted> = {}): void {
  const places = { incomingDirectory: site.incoming, logfilesDirectory: join(site.base, 'logfiles') };
  plantGroup({ ...places, name, out: `out of ${name}`, err: `err of ${name}`, ...more });
}

/** The findings, computed in the process of the test. */
function found(more: Partial<Scope> = {}): string[] {
  return [...verifySite(scope(more))].map(({ kind, place }) => `${kind} ${place}`).sort();
}

function scope(more: Partial<Scope>): Scope {
  const { incoming: incomingDirectory, base } = site;
  return {
    incomingDirectory,
    servers: [{ logfilesDirectory: join(base, 'logfiles'), serverId: 'server_1' }],
    contents: true,
    ...more,
  };
}

/** The findings reported by the command. */
async function verify(...args: string[]): Promise<{ findings: string[]; summary: Line }> {
  const { code, stdout, stderr } = await runWebjobctl(['--json', '--config', site.propertiesFile, 'verify', ...args]);
  assert.equal(stderr, '');
  const lines = parseLines<Line>(stdout);
  const summary = lines.pop();
  assert.equal(summary?.kind, 'summary');
  const findings = lines.map(({ kind, place }) => `${kind} ${place}`).sort();
  assert.equal(summary?.findings, findings.length);
  assert.equal(code, findings.length > 0 ? 1 : 0);
  return { findings, summary: summary as Line };
}

const CUSTODY = 'nph-webjob-custody.server_1.jsonl';

describe('webjobctl verify', () => {
  it('finds nothing in what the server stored, whatever hash the client used', async () => {
    for (const name of ['a', 'b']) {
      const put = await runBare(rawPut(makeUpload(name, { out: 300_000, err: 10, env: 50 })), bareOptions(site));
      assert.equal(statusOf(put.stdout), 200);
    }
    for (const hashType of ['MD5', 'SHA1', 'SHA256', 'SHA512']) plant(`deep/${hashType}`, { hashType });
    plant('none', { fields: { HashType: 'NA', StdOutHash: 'NA', StdErrHash: 'NA' } });
    plant('empty', { out: '', err: '' });
    plant('strange', { hashType: 'SHA1', fields: { HashType: 'constructor' } });
    const { findings, summary } = await verify();
    assert.deepEqual(findings, []);
    assert.deepEqual([summary.groups, summary.inProgress, summary.older], [9, 0, 0]);
    assert.ok(summary.bytes > 600_000);
  });

  it('finds every changed stream and .rdy', async () => {
    for (const name of ['bit', 'end', 'env', 'ready', 'gone', 'lost', 'halves', 'one', 'other']) plant(name);
    writeFileSync(at('bit.out'), 'Out of bit');
    truncateSync(at('end.err'), 3);
    appendFileSync(at('env.env'), 'More=1\n');
    writeFileSync(at('ready.rdy'), 'Jid=another\n');
    rmSync(at('gone.out'));
    rmSync(at('halves.rdy'));
    for (const extension of ['out', 'err', 'env', 'rdy']) rmSync(at(`lost.${extension}`));
    renameSync(at('one.err'), at('aside'));
    renameSync(at('other.err'), at('one.err'));
    renameSync(at('aside'), at('other.err'));
    const expected = ['digest-changed bit.out', 'hash-wrong bit.out', 'hash-wrong end.err', 'size-changed end.err'];
    const more = ['size-changed env.env', 'ready-wrong ready.rdy', 'stream-missing gone.out', 'group-missing lost'];
    const swapped = [
      'incomplete halves',
      ...['one', 'other'].flatMap((name) => [`hash-wrong ${name}.err`, `size-changed ${name}.err`]),
    ];
    assert.deepEqual(found(), [...expected, ...more, ...swapped].sort());
    const shallow = ['ready-wrong ready.rdy', 'stream-missing gone.out', 'group-missing lost', 'incomplete halves'];
    assert.deepEqual(found({ contents: false }), shallow.sort());
  });

  it('compares uploads without a custody record with their run record', async () => {
    for (const name of ['well', 'hash', 'ready']) plant(name, { custody: false });
    plant('lies', { custody: false, hashType: 'SHA256', fields: { StdErrHash: 'a'.repeat(64) } });
    for (const name of ['well', 'hash', 'ready', 'lies']) age([at(`${name}.rdy`)], 7200);
    writeFileSync(at('hash.out'), 'changed');
    writeFileSync(at('ready.rdy'), 'Jid=another\n');
    age([at('ready.rdy')], 7200);
    plant('first');
    const { findings, summary } = await verify();
    const older = ['hash', 'lies', 'ready', 'well'].map((name) => `older ${name}`);
    assert.deepEqual(
      findings,
      [...['hash-wrong hash.out', 'hash-wrong lies.err'], ...older, 'ready-wrong ready.rdy'].sort(),
    );
    assert.equal(summary.older, 4);
    writeFileSync(at('ready.rdy'), 'no job id\n');
    age([at('ready.rdy')], 7200);
    assert.ok(found().includes('ready-wrong ready.rdy'));
  });

  it('finds unrecorded uploads, and knows those that were pruned or archived', async () => {
    for (const name of ['kept', 'pruned', 'packed', 'back', 'again']) plant(name);
    plant('slipped', { custody: false });
    for (const [event, name] of [
      ['prune', 'pruned'],
      ['pack', 'packed'],
      ['prune', 'back'],
      ['prune', 'again'],
    ] as const) {
      const facts = { time: new Date(), event, by: 'root', names: [name] };
      appendCustody(custodyOf(site, 'webjobctl'), facts, { mayCreate: true });
      if (name !== 'back') for (const extension of ['out', 'err', 'env', 'rdy']) rmSync(at(`${name}.${extension}`));
    }
    plant('again', { out: 'new' });
    plant('theirs', { serverId: 'server_2' });
    assert.deepEqual(found(), ['unrecorded slipped']);
    // A restored upload must be unchanged.
    writeFileSync(at('back.err'), 'changed');
    assert.deepEqual(found(), ['hash-wrong back.err', 'size-changed back.err', 'unrecorded slipped']);
    for (const extension of ['out', 'err', 'env', 'rdy']) rmSync(at(`back.${extension}`));
    // Uploads that another server stored may be removed here.
    rmSync(at('theirs.rdy'));
    for (const extension of ['out', 'err', 'env']) rmSync(at(`theirs.${extension}`));
    assert.deepEqual(found(), ['group-missing theirs', 'unrecorded slipped']);
    const names = ['theirs', '../../etc/passwd', 7];
    appendCustody(custodyOf(site, 'webjobctl'), { time: new Date(), event: 'prune', names });
    assert.deepEqual(found(), ['unrecorded slipped']);
  });

  it('misses an upload that was packed, unpacked, and removed', async () => {
    const files = (name: string): string[] =>
      ['out', 'err', 'env', 'rdy'].map((extension) => at(`${name}.${extension}`));
    for (const name of ['stays', 'goes']) {
      plant(name);
      age(files(name), 3 * 86_400);
    }
    const run = async (...args: string[]): Promise<string> => {
      const { code, stdout, stderr } = await runWebjobctl(['--json', '--config', site.propertiesFile, ...args]);
      assert.equal(code, 0, stderr);
      return stdout;
    };
    for (let time = 0; time < 2; time++) {
      const [packed] = parseLines<{ pack: string; groups: number }>(await run('pack', '--older-than', '1d'));
      assert.equal(packed?.groups, 2);
      assert.deepEqual((await verify()).findings, []);
      await run('unpack', packed.pack);
      assert.deepEqual((await verify()).findings, []);
    }
    for (const path of files('goes')) rmSync(path);
    assert.deepEqual((await verify()).findings, ['group-missing goes']);
    plant('goes');
    rmSync(at('goes.rdy'));
    for (const path of files('goes').slice(0, 3)) rmSync(path);
    appendCustody(custodyOf(site, 'webjobctl'), { time: new Date(), event: 'prune', names: ['goes'] });
    assert.deepEqual((await verify()).findings, []);
  });

  it('finds foreign files, and files that other users can write to', async () => {
    plant('well');
    plant('deep/down');
    writeFileSync(at('notes.txt'), '');
    writeFileSync(at('deep/well.out.new'), '');
    symlinkSync('/etc/passwd', at('link.out'));
    chmodSync(at('well.out'), 0o646);
    chmodSync(at('deep'), 0o775);
    chmodSync(custodyOf(site), 0o666);
    const expected = ['unexpected notes.txt', 'unexpected deep/well.out.new', 'link link.out'];
    const modes = ['mode well.out', 'mode deep/', `mode ${CUSTODY}`];
    const owners: string[] = [];
    if (findWebUser()) {
      chownSync(at('well.err'), 54321, 0);
      owners.push('owner well.err');
    }
    assert.deepEqual(found(), [...expected, ...modes, ...owners].sort());
  });

  it('tells an active writer from one that was killed', async () => {
    plant('replaced');
    for (const name of ['fresh', 'replaced']) writeFileSync(at(`${name}.lck`), 'Jid=a\n');
    for (const name of ['fresh.out', 'replaced.out.new']) writeFileSync(at(name), 'part');
    const { findings, summary } = await verify();
    assert.deepEqual([findings, summary.inProgress], [[], 2]);
    age([
      at('fresh.lck'),
      at('fresh.out'),
      at('replaced.lck'),
      at('replaced.out.new'),
      at('replaced.out'),
      at('replaced.err'),
      at('replaced.env'),
    ]);
    assert.deepEqual(found(), [
      ...['incomplete fresh', 'lock-abandoned fresh.lck', 'lock-abandoned replaced.lck', 'unexpected replaced.out.new'],
    ]);
  });

  it('walks the custody record, and reports that there is none', async () => {
    // Well before the others, because the clock of a file system is a few milliseconds late.
    plant('a', { custody: { time: new Date(Date.now() - 1000) } });
    for (const name of ['b', 'c']) plant(name);
    const whole = readFileSync(custodyOf(site), 'latin1');
    const lines = whole.split('\n');
    const write = (text: string): void => writeFileSync(custodyOf(site), text, 'latin1');
    write(whole.replace('"clientId":"client1"', '"clientId":"client2"'));
    const edited = [`custody-broken ${CUSTODY}`, `custody-edited ${CUSTODY}`, 'older a'];
    assert.deepEqual(found({ contents: false }), edited);
    write([lines[0], lines[2], ''].join('\n'));
    assert.deepEqual(found({ contents: false }), [`custody-broken ${CUSTODY}`, 'unrecorded b']);
    write([lines[0], lines[1], ''].join('\n'));
    assert.deepEqual(found({ contents: false }), ['unrecorded c']);
    write(whole.slice(0, -9));
    assert.deepEqual(found({ contents: false }), [`custody-torn ${CUSTODY}`, 'unrecorded c']);
    write('');
    assert.deepEqual(found({ contents: false }), ['unrecorded a', 'unrecorded b', 'unrecorded c']);
    rmSync(custodyOf(site));
    assert.deepEqual(found(), [`custody-missing ${CUSTODY}`]);
    configure(site, { EnableCustody: 'N' });
    assert.deepEqual((await verify()).findings, []);
  });

  it('checks what came or was touched since, and the same part of the rest each time', async () => {
    const names = Array.from({ length: 40 }, (_, index) => `group${index}`);
    for (const name of names) plant(name, { out: name });
    assert.equal((await verify('--since', '1h')).summary.groups, 40);
    const { summary } = await verify('--custody');
    assert.deepEqual([summary.groups, summary.bytes], [40, 0], 'no stream is read');
    for (const option of ['--since', '--touched']) assert.equal((await verify(option, '2099-01-01')).summary.groups, 0);
    // A modification time is easily set back; the change time is not.
    for (const name of names) writeFileSync(at(`${name}.out`), 'changed');
    for (const name of names) utimesSync(at(`${name}.out`), 0, 0);
    const hour = new Date(Date.now() - 3_600_000);
    assert.equal(found({ since: hour }).length, 80);
    assert.equal(found({ touchedSince: hour }).length, 80);
    const sample = await verify('--sample', '25%', '--seed', 'a');
    assert.ok(sample.summary.groups > 0 && sample.summary.groups < 40, `${sample.summary.groups}`);
    const pick = (fraction: number, seed: string): string[] => found({ sample: { fraction, seed } });
    assert.deepEqual(pick(0.25, 'a'), sample.findings);
    assert.equal(pick(1, '').length, 80);
    const seeds = ['1', '2', '3', '4'].map((seed) => JSON.stringify(pick(0.25, seed)));
    assert.ok(new Set(seeds).size > 1, 'another seed, another sample');
    assert.deepEqual(found({ since: hour, sample: { fraction: 0.25, seed: 'a' } }), sample.findings);
    for (const name of names) for (const extension of EXTENSIONS_KEPT) rmSync(at(`${name}.${extension}`));
    const chosen = [...new Set(sample.findings.map((one) => one.replace(/^\S+ |\.out$/g, '')))].sort();
    assert.equal(chosen.length, sample.summary.groups);
    assert.deepEqual(
      pick(0.25, 'a'),
      chosen.map((name) => `group-missing ${name}`),
    );
  });

  it('reports errors in its command line and its files', async () => {
    for (const [code, args] of [
      [2, ['--sample', '0%']],

      [2, ['--since', 'once']],
      [2, ['--checkpoint', 'file']],

      [2, ['one', 'surplus']],
      [2, ['one', '--since', '1h']],
      [4, ['--checkpoint', '/nonexistent', '--key', '/nonexistent']],
    ] as const) {
      const ended = await runWebjobctl(['--config', site.propertiesFile, 'verify', ...args]);
      assert.deepEqual([ended.code, ended.stdout], [code, ''], args.join(' '));
      assert.match(ended.stderr, /^webjobctl: error: /);
    }
    rmSync(site.incoming, { recursive: true });
    const gone = await runWebjobctl(['--config', site.propertiesFile, 'verify']);
    assert.deepEqual([gone.code, gone.stderr.includes('ENOENT')], [4, true]);
  });

  it('prints one line for each finding, without terminal sequences', async () => {
    plant('well');
    mkdirSync(at('\x1b[2J'));
    writeFileSync(at('\x1b[2J/a\nb'), '');
    const { code, stdout, stderr } = await runWebjobctl(['--config', site.propertiesFile, 'verify']);
    assert.equal(code, 1);
    assert.match(stdout, /^unexpected {11}\\x1b\[2J\/a\\nb: a file that belongs to no upload\n$/);
    assert.match(stderr, /^webjobctl: 1 upload, \d+ B in .* 1 finding\n$/m);
  });
});

describe('verify while clients upload', () => {
  it('finds nothing but what they replace, again and again', async () => {
    const its = await startCommandSite({ mpm: 'event' });
    after(its.close);
    its.configure({ PutNameFormat: '%cid_%cmd', OverwriteExistingFiles: 'Y', KeepDifferingUploads: 'N' });
    let isOver = false;
    const client = async (number: number): Promise<void> => {
      for (let turn = 0; turn < 3; turn++) {
        const out = randomBytes(50_000).toString('latin1');
        const put = { fileName: `job${number}_${turn % 3}`, jobId: `j_${number}_${turn}`, out };
        assert.equal((await its.put(put)).status, 200);
      }
    };
    const clients = Promise.all([0, 1].map(client)).finally(() => {
      isOver = true;
    });
    for (let round = 0; round < 100 && !isOver; round++) {
      const { code, stdout, stderr } = await runWebjobctl(['--config', its.site.propertiesFile, 'verify']);
      const others = stdout.split('\n').filter((line) => line !== '' && !/^replaced +client1_job\d_\d: /.test(line));
      assert.deepEqual([code, others], [stdout === '' ? 0 : 1, []], stderr);
    }
    await clients;
  });
});
