// Bytes that control a terminal, a page or a spreadsheet, in every field that a client, an old
// server or a foreign file can put them into: webjobctl prints UTF-8 without control characters,
// and still shows what was there.
import assert from 'node:assert/strict';
import { isUtf8 } from 'node:buffer';
import { spawn } from 'node:child_process';
import { appendFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { RECORD_FIELDS } from 'webjob-protocol';
import { collect } from '../support/bare.ts';
import { makeLockerSite, makeRecord, WEBJOBCTL } from '../support/locker-site.ts';
import { type Planted, plantPast } from '../support/past-site.ts';

/**
 * ESC, BEL, DEL and a carriage return; C1 as one byte and as UTF-8; what changes the direction of
 * text or ends a line; a formula.
 */
const HOSTILE = {
  ascii: '\x1b[2J\x07\x7f\x08',
  c1: '\x9b31m\x9d0;owned\x9c',
  utf8: latin('\u009b31m\u009d0;owned\u009c'),
  bidi: latin('\u202egnp.exe\u202c\u2066x\u2069\u061c\u200f\u2028\u2029\ufeff'),
};
const EVERYTHING = Object.values(HOSTILE).join('|');
const FORBIDDEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/;

/** Text in the form of the files: one character for each byte. */
function latin(text: string): string {
  return Buffer.from(text).toString('latin1');
}

const its = makeLockerSite({ UseGMT: 'Y' });
const { site, webjobctl } = its;
const report = join(site.root, 'report');
const ago = (days: number): Date => new Date(Date.now() - days * 86_400_000);
let evil: Planted;
let other: Planted;
let twice: Planted;
let long: Planted;

before(async () => {
  const out = Buffer.from(`first\n${EVERYTHING}\nlast\n`, 'latin1');
  const planted = plantPast(site, 'UTC', [
    { at: ago(9), clientId: 'evil', out: Buffer.from(`other\n${EVERYTHING}\n`, 'latin1') },
    { at: ago(8), clientId: 'evil', out, put: { message: `Success ${HOSTILE.ascii}` } },
    { at: ago(7), clientId: 'twice' },
    { at: ago(6), clientId: 'long' },
  ]);
  [other, evil, twice, long] = planted as [Planted, Planted, Planted, Planted];
  const path = ({ name }: Planted, extension: string): string => join(site.incoming, `${name}.${extension}`);
  // As no client of ours writes it: every value raw.
  const known = { ClientId: 'evil', GetRequest: 'host.sh', Jid: evil.jobId, KidStatus: '3', KidSignal: '0' };
  const lines = RECORD_FIELDS.map((name) => `${name}=${known[name as keyof typeof known] ?? EVERYTHING}\n`);
  writeFileSync(path(evil, 'env'), lines.join(''), 'latin1');
  appendFileSync(path(evil, 'env'), `Extra=${EVERYTHING}\n`, 'latin1');
  appendFileSync(path(evil, 'err'), `${EVERYTHING}\n`, 'latin1');
  appendFileSync(path(twice, 'env'), 'KidStatus=5\nKidSignal=9\nRunError=late\nHostname=liar\n');
  writeFileSync(path(long, 'env'), makeLongRecord(long.jobId));
  // A foreign file, a log line of another server, and a name in the custody record.
  writeFileSync(join(site.incoming, `stray${HOSTILE.ascii}\u009b\u202e`), '');
  appendFileSync(
    site.logFile,
    Buffer.from(
      `2026-01-01 00:00:00 ${EVERYTHING.replaceAll(' ', '')} u 127.0.0.1 GET evil x 0 0 0 404 -- ${EVERYTHING}\n`,
      'latin1',
    ),
  );
  const facts = { covers: [0, 0], prev: '0'.repeat(64), event: 'deposit', name: `gone${EVERYTHING}` };
  appendFileSync(join(site.base, 'logfiles', 'nph-webjob-custody.server_1.jsonl'), `${JSON.stringify(facts)}\n`);
  const reason = Buffer.from(EVERYTHING, 'latin1').toString('utf8');
  assert.equal((await webjobctl('hold', 'add', '--client', 'evil', '--reason', reason)).exitCode, 0);
});
after(its.close);

/**
 * A run record longer than any reader reads: lines of 64 bytes, so that every beginning of it ends
 * with a complete line.
 */
function makeLongRecord(jobId: string): string {
  const record = makeRecord({ ClientId: 'long', GetRequest: 'host.sh', Jid: jobId });
  const line = `Padding=${'x'.repeat(55)}\n`;
  const rest = 64 - ((record.length + 'Rest=\n'.length) % 64);
  return `${record}Rest=${'y'.repeat(rest)}\n${line.repeat(20_000)}`;
}

/** Invisible control characters in the output of a program. */
function findObeyed(output: Buffer): string[] {
  if (!isUtf8(output)) return ['it is not UTF-8'];
  return output
    .toString()
    .split('\n')
    .filter((line) => FORBIDDEN.test(line.replaceAll(/\x1b\[(?:\d{1,2}(?:;\d{1,2})*)?m/g, '')));
}

describe('webjobctl with hostile data', () => {
  const COMMANDS: string[][] = [
    ['jobs'],
    ['jobs', '--columns', 'time,job,client,command,state,exit,status,user,address,message,group'],
    ['show', 'EVIL'],
    ['show', 'EVIL', '--all'],
    ['show', 'OTHER', '--all'],
    ['diff', 'OTHER', 'EVIL'],
    ['search', 'last'],
    ['search', 'm'],
    ['clients'],
    ['hold', 'list'],
    ['prune', '--older-than', '1d', '--dry-run'],
    ['pack', '--older-than', '1d', '--dry-run'],
    ['verify'],
    ['metrics', '--textfile', '-'],
    ['show', `no-such-${HOSTILE.ascii}\u009b`],
    ['search', `no-such-${HOSTILE.ascii}\u009b`],
    ['jobs', '--state', `no-such-${HOSTILE.ascii}\u009b`],
    ['unpack', `no-such-${HOSTILE.ascii}\u009b`],
  ];
  const words = (args: readonly string[]): string[] =>
    args.map((word) => (word === 'EVIL' ? evil.jobId : word === 'OTHER' ? other.jobId : word));

  it('prints no terminal sequence in text, in JSON and in messages', async () => {
    for (const args of COMMANDS) {
      // Columns are text, and a message is the same beside JSON.
      const isSame =
        args.includes('--columns') || args.includes('OTHER') || args.some((word) => word.startsWith('no-such-'));
      for (const options of isSame ? [[]] : [[], ['--json']]) {
        const { stdout, stderr } = await webjobctl(...options, ...words(args));
        const what = [...options, ...args].join(' ');
        assert.deepEqual(findObeyed(stdout), [], what);
        assert.deepEqual(findObeyed(Buffer.from(stderr, 'latin1')), [], `stderr of ${what}`);
      }
    }
  });

  it('shows what was there', async () => {
    const { text } = await webjobctl('show', evil.jobId, '--all');
    for (const name of ['Hostname', 'SystemOS', 'CommandLine', 'KidReason'])
      assert.match(
        text,
        new RegExp(`^(?:\\x1b\\[\\dm)?${name}: +\\\\x1b\\[2J\\\\x07\\\\x7f\\\\x08\\|\\\\x9b31m`, 'm'),
        name,
      );
    assert.match(text, /first\n\\x1b\[2J/);
    const { text: json } = await webjobctl('--json', 'show', evil.jobId);
    const { record } = JSON.parse(json) as { record: Record<string, string> };
    assert.equal(record.KidReason, EVERYTHING);
    assert.match((await webjobctl('jobs', '--client', 'evil')).text, / evil +host\.sh +failed +3 +200$/m);
  });

  it('prints no terminal sequence on a terminal', async (t) => {
    const args = [process.execPath, WEBJOBCTL, '--config', site.propertiesFile, 'show', evil.jobId, '--env'];
    const child = spawn('script', ['-qec', args.map((word) => `'${word}'`).join(' '), '/dev/null'], {
      env: { ...process.env, PAGER: 'cat', TERM: 'xterm' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const ended = await collect(child, 60).catch(() => undefined);
    if (!ended) return t.skip('script (util-linux) is not installed');
    const lines = Buffer.from(ended.stdout.toString('latin1').replaceAll('\r\n', '\n'), 'latin1');
    assert.deepEqual(findObeyed(lines), []);
    assert.match(lines.toString(), /KidReason=\\x1b\[2J/);
  });
});

describe('a page of the report', () => {
  before(async () => {
    const ran = await webjobctl('report', '--html', report, '--since', '30d');
    assert.equal(ran.exitCode, 0, ran.stderr);
  });

  it('contains no character that a browser interprets and a reader does not see', () => {
    const pages = readdirSync(report, { recursive: true }).map(String);
    for (const page of pages.filter((name) => name.endsWith('.html')))
      assert.deepEqual(findObeyed(readFileSync(join(report, page))), [], page);
  });

  it('does not show the beginning of a record as the record', async () => {
    const pages = readdirSync(join(report, 'job')).map((name) => readFileSync(join(report, 'job', name), 'utf8'));
    const page = pages.find((text) => text.includes(long.jobId)) ?? '';
    assert.ok(page.includes('The record cannot be read'), page.slice(page.indexOf('<main')));
    assert.ok(!page.includes('<th scope="row">Padding</th>'));
  });
});

describe('a run record', () => {
  it('has its first line of a name counted by every reader', async () => {
    const [job] = await its.readJson<Record<string, unknown>>('jobs', '--client', 'twice');
    assert.deepEqual([job?.state, job?.exitCode, job?.signal], ['done', 0, null]);
    const { text } = await webjobctl('show', twice.jobId);
    assert.doesNotMatch(text, /liar|late/);
    assert.equal((await webjobctl('index')).exitCode, 0);
    const [indexed] = await its.readJson<Record<string, unknown>>('jobs', '--client', 'twice');
    assert.deepEqual(indexed, job);
  });
});

describe('a spreadsheet', () => {
  it('gets no formula from any field', async () => {
    const formulas = ['=1+1', '+1', '-1', '@SUM(1)'];
    for (const [index, formula] of formulas.entries())
      appendFileSync(
        site.logFile,
        `2026-01-01 00:00:0${index} ${formula} ${formula} ${formula} GET ${formula} ${formula} 0 0 0 404 -- ${formula}\n`,
      );
    const { text } = await webjobctl('export', '--csv', '--spreadsheet');
    const cells = text.split('\r\n').flatMap((row) => row.match(/(?:^|(?<=,))(?:"(?:[^"]|"")*"|[^,]*)/g) ?? []);
    assert.ok(cells.filter((cell) => cell.includes('=1+1')).length >= 5);
    // A number may be negative; a text must not begin like that.
    assert.deepEqual(
      cells.filter((cell) => /^"?[=+@\t\r]|^"?-(?!\d*$)/.test(cell)),
      [],
    );
  });
});
