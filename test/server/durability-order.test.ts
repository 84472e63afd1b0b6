// The order of system calls required by rule 4 of docs/architecture.md, from strace on the real
// process.
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { configure, type Site } from '../../scripts/site.ts';
import { runBare } from '../support/bare.ts';
import { custodyOf } from '../support/custody-record.ts';
import { giveAway } from '../support/hooks-site.ts';
import { type Call, NO_STRACE, readTrace, traceTo } from '../support/locker-strace.ts';
import {
  bareOptions,
  baseOf,
  isWhole,
  makeLockerSite,
  makeScratch,
  makeUpload,
  rawPut,
  statusOf,
  type Upload,
} from '../support/locker-upload.ts';

const SIZES = { out: 300_000, err: 5_000, env: 400 };

/**
 * From the first byte of the body to the complete upload, whose streams have `suffix` in their
 * names until then.
 */
function received(suffix: string): string[] {
  const names = ['.out', '.err', '.env'].map((stream) => `${stream}${suffix}`);
  const stored = names.flatMap((name) => [`create ${name}`, `write ${name}`]);
  return [...stored, ...['.lck', ...names].map((name) => `fsync ${name}`)];
}

function locked(folder: string): string[] {
  return ['create .lck', 'write .lck', `statfs ${folder}`];
}

/** The calls that follow when the streams have their names. */
function announced(folder: string): string[] {
  return [
    `fsync ${folder}`,
    'write custody',
    'fsync custody',
    'rename .lck .rdy',
    `fsync ${folder}`,
    'open log',
    'write log',
    'write answer',
  ];
}

describe('the script under strace', { skip: NO_STRACE }, () => {
  let site: Site;
  before(() => {
    site = makeLockerSite();
  });
  after(() => site.remove());

  it('syncs streams and lock, directory, custody record, .rdy, directory, then logs and answers', async () => {
    const upload = makeUpload('plain', SIZES);
    const steps = await traceUpload(site, upload, baseOf(site, 'plain'));
    assert.deepEqual(steps, [...locked('incoming'), ...received(''), ...announced('incoming')]);
  });

  it('removes the .rdy of a replaced upload only when the new streams are on disk', async () => {
    configure(site, { PutNameFormat: '%cid_%cmd', OverwriteExistingFiles: 'Y', KeepDifferingUploads: 'N' });
    const base = baseOf(site, 'again');
    await traceUpload(site, makeUpload('again', SIZES), base);
    const other = { ...makeUpload('again', { ...SIZES, err: 5_001 }), jobId: 'other' };
    const steps = await traceUpload(site, other, base);
    const placed = ['.out', '.err', '.env'].map((stream) => `rename ${stream}.new ${stream}`);
    assert.deepEqual(steps, [
      ...locked('incoming'),
      ...received('.new'),
      ...['write custody', 'fsync custody', 'unlink .rdy', 'fsync incoming', ...placed],
      ...announced('incoming'),
    ]);
  });

  it('syncs the directory of an existing upload again before the answer', async () => {
    configure(site, { PutNameFormat: '%cid_%cmd' });
    const [upload, base] = [makeUpload('repeated', SIZES), baseOf(site, 'repeated')];
    await traceUpload(site, upload, base);
    const steps = await traceUpload(site, upload, base);
    const [create, write] = locked('incoming');
    assert.deepEqual(steps, [create, write, 'fsync incoming', 'unlink .lck', ...announced('incoming').slice(-3)]);
  });

  it('opens a directory once, before anything is made in it, and syncs that descriptor', async () => {
    configure(site, { PutNameFormat: 'held/%cmd' });
    for (const name of ['new', 'old']) {
      const upload = makeUpload(name, SIZES);
      const file = join(makeScratch(site, 'scratch'), `${name}.folder.trace`);
      const wrapper = traceTo(file);
      const result = await runBare(rawPut(upload), bareOptions(site, { wrapper, timeLimitSeconds: 60 }));
      assert.equal(statusOf(result.stdout), 200, result.stderr);
      const folder = join(site.incoming, 'held');
      const texts = readTrace(file).map(({ text }) => text);
      const opened = texts.flatMap((text) => new RegExp(`^openat\\(.*"${folder}", .*= (\\d+)<`).exec(text)?.[1] ?? []);
      const synced = texts.flatMap((text) => new RegExp(`^fsync\\((\\d+)<${folder}>`).exec(text)?.[1] ?? []);
      assert.equal(opened.length, 1, texts.join('\n'));
      assert.deepEqual(new Set(synced), new Set(opened));
      const first = texts.findIndex((text) => text.includes(`"${folder}/`) && text.includes('O_CREAT'));
      assert.ok(first > texts.findIndex((text) => text.startsWith('openat(') && text.includes(`"${folder}",`)));
      // A stream is synced on the descriptor that wrote it.
      for (const stream of ['out', 'err', 'env']) {
        const path = `${folder}/${name}.${stream}`;
        const using = (call: string): string[] =>
          texts.flatMap((text) =>
            text.includes(`<${path}>`) ? (new RegExp(`^${call}\\((\\d+)<`).exec(text)?.[1] ?? []) : [],
          );
        assert.deepEqual(new Set(using('fsync')), new Set(using('write')), stream);
      }
    }
  });

  it('syncs the name of the custody record before its first entry', async () => {
    configure(site, { PutNameFormat: '%cid_%cmd' });
    giveAway(dirname(custodyOf(site)));
    rmSync(custodyOf(site));
    const steps = await traceUpload(site, makeUpload('first', SIZES), baseOf(site, 'first'));
    const [named = '', ...others] = announced('incoming');
    assert.deepEqual(steps, [
      ...[...locked('incoming'), ...received('')],
      ...[named, 'open custody', 'fsync logfiles', ...others],
    ]);
  });

  it('syncs the name of each new directory before the next is made', async () => {
    configure(site, { PutNameFormat: '%cid/%cmd/all/upload' });
    const upload = makeUpload('nested', SIZES);
    const folder = 'incoming/client1/nested/all';
    const steps = await traceUpload(site, upload, join(site.base, folder, 'upload'));
    assert.deepEqual(steps, [
      ...['mkdir incoming/client1', 'fsync incoming'],
      ...['mkdir incoming/client1/nested', 'fsync incoming/client1'],
      ...[`mkdir ${folder}`, 'fsync incoming/client1/nested'],
      ...[...locked(folder), ...received(''), ...announced(folder)],
    ]);
  });
});

/**
 * Runs uploads under strace; returns the steps that touched the upload, its directories, the log or
 * the answer, without repetitions.
 */
async function traceUpload(site: Site, upload: Upload, base: string): Promise<string[]> {
  const file = join(makeScratch(site, 'scratch'), `${upload.name}.trace`);
  const result = await runBare(rawPut(upload), bareOptions(site, { wrapper: traceTo(file), timeLimitSeconds: 60 }));
  assert.equal(statusOf(result.stdout), 200, result.stderr);
  assert.ok(isWhole(base, upload));
  const steps = readTrace(file).flatMap((call) => describeCall(call, site, base) ?? []);
  return steps.filter((step, index) => step !== steps[index - 1]);
}

/** One call as a step: `create .out`, `fsync incoming`; undefined for an irrelevant one. */
function describeCall({ name, text }: Call, site: Site, base: string): string | undefined {
  if (/ = -1 \w+/.test(text)) return undefined;
  if (/^write\(1</.test(text)) return 'write answer';
  const quoted = [...text.matchAll(/"([^"]*)"/g)].map((match) => match[1] ?? '');
  const onDescriptor = /^\w+\(\d+<([^>]*)>/.exec(text)?.[1];
  const labels = (onDescriptor === undefined ? quoted : [onDescriptor]).map((path) => labelOf(path, site, base));
  if (labels.length === 0 || labels.includes(undefined)) return undefined;
  const verb = verbOf(name, text);
  return verb && [verb, ...labels].join(' ');
}

/** `.out` of the upload, `log`, `custody`, or a directory by its path below BaseDirectory. */
function labelOf(path: string, site: Site, base: string): string | undefined {
  if (path === site.logFile) return 'log';
  if (path === dirname(site.logFile)) return 'logfiles';
  if (path === custodyOf(site)) return 'custody';
  if (path.startsWith(`${base}.`)) return path.slice(base.length);
  return path === site.incoming || path.startsWith(`${site.incoming}/`) ? relative(site.base, path) : undefined;
}

/** What a call does to its file; undefined when it changes nothing on disk. */
function verbOf(name: string, text: string): string | undefined {
  if (name === 'close') return undefined;
  if (name !== 'openat') return name.replace(/^p?(write|rename|unlink|mkdir|link).*/, '$1');
  if (text.includes('O_CREAT')) return text.includes('O_EXCL') ? 'create' : 'open';
  return undefined;
}
