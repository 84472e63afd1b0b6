// Resuming a custody record after its known part: the result is the same as for a walk from the
// first line, and the known part is not read again.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  appendFileSync,
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { joinSites, tellWitness } from '../../admin/site/evidence.ts';
import { appendCustody, Chain, custodyPath, formatCustody, type Link } from '../../cgi/locker/index.ts';
import { readSettings } from '../../cgi/settings.ts';
import { WRITER as WRITER_ID } from '../../evidence/events.ts';
import { Evidence } from '../../evidence/evidence.ts';
import { CustodyRecords } from '../../evidence/records.ts';
import { serversOf } from '../../ledger/site.ts';
import { makeSite } from '../../scripts/site.ts';
import { custodyOf, walk } from '../support/custody-record.ts';
import { verifyAs } from '../support/evidence-site.ts';
import { runWebjobctl } from '../support/operator.ts';
import { plantGroup } from '../support/verify-site.ts';

const WRITER = join(import.meta.dirname, '..', 'support', 'custody-writer.ts');

/**
 * The result of a walk that resumes after `size` bytes; undefined when it cannot resume there, or
 * is lost.
 */
function walkFrom(path: string, size: number): { links: Link[]; torn: Link[] } | undefined {
  const fd = openSync(path, 'r');
  try {
    const chain = new Chain(fd);
    if (!chain.resume(size)) return undefined;
    const links = [...chain.walk()];
    return chain.isLost ? undefined : { links, torn: chain.findTorn() };
  } finally {
    closeSync(fd);
  }
}

/** Appends the record of a writer for which the record `index` was the last. */
function appendSlow(path: string, index: number): void {
  const link = walk(path).links.filter(({ record }) => record)[index];
  const covers: [number, number] = [link?.record?.covers[1] ?? 0, link?.to ?? 0];
  const prev = createHash('sha256')
    .update(readFileSync(path).subarray(...covers))
    .digest('hex');
  appendFileSync(path, `${formatCustody(covers, prev, { event: 'deposit', name: 'slow' })}\n`);
}

describe('a continued walk', () => {
  let folder: string;
  let file: string;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'webjob-resume-'));
    file = join(folder, 'custody.jsonl');
    const writers = ['a', 'b', 'c'].map((name) =>
      spawn(process.execPath, [WRITER, file, name, '12'], { stdio: 'ignore' }),
    );
    await Promise.all(writers.map((writer) => once(writer, 'exit')));
    appendFileSync(file, '{"covers":[0,');
    for (const name of ['behind a torn line', 'over its end'])
      appendCustody(file, { event: 'deposit', name }, { mayCreate: true });
    appendSlow(file, 20);
    appendCustody(file, { event: 'deposit', name: 'last' }, { mayCreate: true });
  });
  after(() => rmSync(folder, { recursive: true }));

  const agree = (text: Buffer, sound: readonly Link[], from: number): void => {
    const path = join(folder, 'changed.jsonl');
    writeFileSync(path, text);
    const whole = walk(path);
    for (const { to } of sound.filter((link) => link.record && link.to <= from)) {
      const found = walkFrom(path, to);
      assert.ok(found, `it can go on behind ${to} bytes`);
      assert.deepEqual(
        found.links,
        whole.links.filter((link) => link.from >= to),
        `behind ${to} bytes`,
      );
      assert.deepEqual(
        found.torn,
        whole.faults.filter(({ fault }) => fault === 'torn'),
        `torn, behind ${to} bytes`,
      );
    }
  };

  it('finds after every entry what a walk from the first line finds', () => {
    const { links, faults } = walk(file);
    assert.deepEqual(faults, []);
    assert.equal(links.filter(({ record }) => record).length, 40);
    agree(readFileSync(file), links, Number.POSITIVE_INFINITY);
  });

  it('finds every change after the known part', () => {
    const { links } = walk(file);
    const text = readFileSync(file);
    const at = links[20]?.to ?? 0;
    const line = (index: number): Buffer => text.subarray(links[index]?.from, links[index]?.to);
    const flipped = Buffer.from(text);
    flipped.writeUInt8(flipped.readUInt8(at + 200) ^ 1, at + 200);
    for (const changed of [
      flipped,
      Buffer.concat([text.subarray(0, at), text.subarray(links[21]?.to)]),
      Buffer.concat([text.subarray(0, links[22]?.from), line(23), line(22), text.subarray(links[23]?.to)]),
      Buffer.concat([text, line(10)]),
      Buffer.concat([text, line(30)]),
      Buffer.concat([text.subarray(0, at), Buffer.from('no record\n'), text.subarray(at)]),
      text.subarray(0, (links[25]?.to ?? 0) - 5),
    ])
      agree(changed, links, at);
    // A copy of the slow one, which is the last but one.
    agree(Buffer.concat([text, line(links.length - 2)]), links, Number.POSITIVE_INFINITY);
  });

  it('reports that it is lost where a writer was slower than it looks back', () => {
    const path = join(folder, 'large.jsonl');
    for (let number = 0; number < 30; number++)
      appendCustody(path, { event: 'deposit', name: `${number}`, filling: 'x'.repeat(60_000) }, { mayCreate: true });
    const known = walk(path);
    const size = known.links.at(-1)?.to ?? 0;
    assert.deepEqual([known.faults, walkFrom(path, size)?.links], [[], []]);
    assert.equal(walkFrom(path, size - 1), undefined, 'not behind a record');
    appendSlow(path, 2);
    assert.deepEqual(walk(path).faults, []);
    assert.equal(walkFrom(path, size), undefined);
  });
});

describe('verify --since at a site that root has verified', {
  skip: process.getuid?.() !== 0 && 'only root keeps a witness',
}, () => {
  const site = makeSite({ settings: { PutNameFormat: '%cid_%cmd' } });
  after(() => site.remove());
  const logfilesDirectory = join(site.base, 'logfiles');
  const plant = (name: string, out = `out of ${name}`): void =>
    plantGroup({ incomingDirectory: site.incoming, logfilesDirectory, name, out, err: '' });
  const keep = async (...args: string[]): Promise<void> => {
    const { code, stderr } = await runWebjobctl(['--config', site.propertiesFile, ...args]);
    assert.equal(code, 0, stderr);
  };

  /** The number of records that are read for new ones, as by verify. */
  const countRead = (since: Date): number => {
    const { settings } = readSettings(site.propertiesFile);
    const [joined] = joinSites([
      { propertiesFile: undefined, settings, servers: serversOf(settings), label: undefined },
    ]);
    assert.ok(joined);
    const evidence = new Evidence(joined, { since });
    try {
      const { count } = evidence.records;
      tellWitness(evidence);
      return count;
    } finally {
      evidence.close();
    }
  };

  it('reads only new entries, and still knows everything in archives', async () => {
    for (let number = 0; number < 20; number++) plant(`old_${number}`);
    for (const name of ['old_1', 'old_2'])
      for (const extension of ['out', 'err', 'env', 'rdy'])
        utimesSync(join(site.incoming, `${name}.${extension}`), 1e9, 1e9);
    await keep('pack', '--older-than', '1000d');
    assert.deepEqual(await verifyAs([site.propertiesFile]), []);
    await sleep(20);
    const since = new Date();
    plant('old_1', 'other bytes under a name that is in a pack');
    plant('new');
    const found = await verifyAs([site.propertiesFile], '--since', since.toISOString());
    assert.deepEqual(found, ['differing old_1']);
    await sleep(20);
    const later = new Date();
    plant('newest');
    // The new record, and in webjobctl's record that of the archive.
    assert.equal(countRead(later), 2);
    assert.equal(countRead(since), 4, 'what an earlier run has seen is still new since then');
    writeFileSync(join(site.incoming, 'newest.out'), 'changed');
    const changed = await verifyAs([site.propertiesFile], '--since', later.toISOString());
    assert.ok(
      changed.some((line) => line.endsWith(' newest.out')),
      changed.join(),
    );
  });

  it('checks an upload whose name is in a damaged manifest', async () => {
    const folder = join(site.base, 'packed');
    const [manifest = ''] = readdirSync(folder).filter((name) => name.endsWith('.jsonl'));
    const path = join(folder, manifest);
    const whole = readFileSync(path, 'utf8');
    const changed = whole.replace('"name":"old_1"', '"name":1');
    assert.notEqual(changed, whole);
    writeFileSync(path, changed);
    const found = await verifyAs([site.propertiesFile]);
    writeFileSync(path, whole);
    assert.ok(
      found.some((line) => line.endsWith(` packed/${manifest}`)),
      found.join(),
    );
    assert.ok(!found.includes('differing old_1'));
  });

  it('knows from the unread part that an upload was adopted after its deposit', () => {
    const folder = mkdtempSync(join(tmpdir(), 'webjob-adopted-'));
    const facts = (word: string, second: number) => ({
      time: new Date(Date.UTC(2026, 0, 1, 0, 0, second)),
      name: 'one',
      jobId: 'server_1_1085355126_00723',
      bytes: { out: 1, err: 1, env: 1 },
      sha256: { out: word, err: word, env: word },
    });
    try {
      const [server, keeper] = ['server_1', WRITER_ID].map((id) => custodyPath(folder, id)) as [string, string];
      appendCustody(server, { event: 'deposit', serverId: 'server_1', ...facts('deposited', 1) }, { mayCreate: true });
      const { time, ...upload } = facts('adopted', 2);
      appendCustody(keeper, { time, event: 'adopt', reason: 'a test', uploads: [upload] }, { mayCreate: true });
      const { size } = statSync(keeper);
      for (const turns of [[], undefined]) {
        const resume = (_: string, { serverId }: { serverId: string }) =>
          serverId === WRITER_ID ? { size, newest: time.getTime(), turns } : undefined;
        const records = new CustodyRecords([folder], { resume });
        records.refresh();
        assert.equal(records.find('one')?.sha256.out, 'adopted');
        records.close();
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('finds changes in the part that it does not read again', async () => {
    const path = custodyOf(site);
    const text = readFileSync(path, 'latin1');
    writeFileSync(path, text.replace('"name":"old_7"', '"name":"old_6"'), 'latin1');
    plant('after');
    const found = await verifyAs([site.propertiesFile], '--since', new Date(Date.now() - 1000).toISOString());
    assert.ok(found.includes('witness-changed nph-webjob-custody.server_1.jsonl'), found.join());
  });
});
