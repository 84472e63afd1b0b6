// What `webjobctl acts` reads from the view, file by file: which requests it takes, why it refuses
// every other, and why it refuses an inbox that it cannot trust.
import assert from 'node:assert/strict';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { type Asked, openInbox } from '../../admin/acts/inbox.ts';
import {
  ACT_LIFETIME_MS,
  type ActRequest,
  formatRequest,
  makeActId,
  parseActId,
  parseRequest,
  subjectOf,
  tagOf,
} from '../../admin/acts/request.ts';
import { Failure } from '../../cli/failure.ts';
import { findReader } from '../../scripts/view.ts';

const JOB = 'server_1_1085355126_00723';
const facts = { job: JOB, client: 'client1', user: 'anna', text: undefined, stream: undefined } as const;
const NOTE: ActRequest = { act: 'note', ...facts, assignment: undefined, text: 'looked at' };

const parse = (change: Record<string, unknown>): ActRequest => parseRequest(JSON.stringify({ ...NOTE, ...change }));

describe('a request to act', () => {
  it('is read as it was written', () => {
    const wholes: ActRequest[] = [
      NOTE,
      { ...NOTE, act: 'download', text: undefined, stream: 'err' },
      { ...NOTE, act: 'package', client: undefined, text: undefined },
      { ...NOTE, act: 'verify', text: undefined, user: 'x'.repeat(255) },
      { ...NOTE, act: 'pause', job: undefined, assignment: '999999999999999', client: undefined },
      { ...NOTE, text: '\u{1f600}'.repeat(1000) },
    ];
    for (const whole of wholes) assert.deepEqual(parseRequest(formatRequest(whole)), whole);
  });

  const WRONG: [change: Record<string, unknown>, message: string][] = [
    [{ extra: 1 }, 'it has unknown fields'],
    [{ act: 'prune' }, 'its act is unknown'],
    [{ job: 7 }, 'its job is not a job id'],
    [{ job: 'a b' }, 'its job is not a job id'],
    [{ act: 'pause', assignment: '1' }, 'its job is not a job id'],
    [{ assignment: '1' }, 'its assignment is not a number'],
    [{ act: 'cancel', job: undefined, assignment: '01' }, 'its assignment is not a number'],
    [{ act: 'cancel', job: undefined, assignment: '1'.repeat(16) }, 'its assignment is not a number'],
    [{ client: '*' }, 'its client is not a client id'],
    [{ user: 'x'.repeat(256) }, 'its user is not a user name'],
    [{ act: 'download', text: undefined, stream: 'rdy' }, 'its stream is unknown'],
    [{ act: 'download', text: undefined }, 'its stream is unknown'],
    [{ act: 'verify' }, 'its text is not allowed'],
    [{ text: undefined }, 'its text is not allowed'],
    [{ text: 1 }, 'its text is missing'],
    [{ text: ' ' }, 'its text is empty'],
    [{ text: 'a\nb' }, 'its text is not one line of text'],
    [{ text: 'x'.repeat(1001) }, 'its text is longer than 1000 characters'],
  ];
  for (const [change, message] of WRONG)
    it(`with ${JSON.stringify(change).slice(0, 60)} is refused because ${message}`, () => {
      assert.throws(() => parse(change), { name: 'SyntaxError', message });
    });

  it('is a JSON object', () => {
    assert.throws(() => parseRequest('{'), { message: 'it is not JSON' });
    for (const text of ['[]', 'null', '"x"'])
      assert.throws(() => parseRequest(text), { message: 'it is not an object' });
  });

  it('has an id with its time and its job, which no other has', () => {
    const id = makeActId(JOB, 1234);
    assert.deepEqual(parseActId(id), { at: 1234, tag: tagOf(JOB) });
    assert.notEqual(makeActId(JOB, 1234), id);
    assert.notEqual(
      tagOf(subjectOf({ job: undefined, assignment: '7' })),
      tagOf(subjectOf({ job: undefined, assignment: '8' })),
    );
    assert.equal(subjectOf({ job: undefined, assignment: '7' }), 'assignment 7');
    for (const wrong of ['', id.slice(1), `${id}0`, `0${id}`, id.toUpperCase(), `${id}\n`])
      assert.equal(parseActId(wrong), undefined, wrong);
  });
});

/** Nobody, where the tests do not run as root. */
function giveTo(user: { uid: number; gid: number } | undefined, path: string): void {
  if (user) chownSync(path, user.uid, user.gid);
}

describe('the inbox of acts', () => {
  const NOW = Date.UTC(2026, 10, 30, 12);
  const owner = process.getuid?.() === 0 ? findReader() : undefined;
  let root = '';
  let inbox = '';
  let locker = '';
  before(() => {
    root = mkdtempSync(join(tmpdir(), 'webjob-inbox-'));
    chmodSync(root, 0o755);
    locker = join(root, 'incoming');
    mkdirSync(locker, { mode: 0o755 });
  });
  after(() => rmSync(root, { recursive: true, force: true }));
  beforeEach(() => {
    inbox = join(root, 'inbox');
    rmSync(inbox, { recursive: true, force: true });
    mkdirSync(inbox, { mode: 0o700 });
    giveTo(owner, inbox);
  });

  function put(name: string, content: string | Buffer = formatRequest(NOTE), at = NOW): string {
    writeFileSync(join(inbox, name), content);
    giveTo(owner, join(inbox, name));
    utimesSync(join(inbox, name), at / 1000, at / 1000);
    return name;
  }

  const name = (at = NOW, subject = JOB): string => `${makeActId(subject, at)}.json`;

  /** What is in the inbox, and what is said of the rest. */
  function read(): { asked: Asked[]; said: string[] } {
    const said: string[] = [];
    const opened = openInbox(inbox, locker);
    try {
      return { asked: opened.read(NOW, (message) => said.push(message)), said };
    } finally {
      opened.close();
    }
  }

  it('is read in the order in which the requests came, not in that of their forms', () => {
    const [late, early] = [
      put(name(NOW - 5000), formatRequest(NOTE), NOW),
      put(name(NOW), formatRequest(NOTE), NOW - 1000),
    ];
    const same = [
      put(name(NOW - 3000), formatRequest(NOTE), NOW - 9000),
      put(name(NOW - 4000), formatRequest(NOTE), NOW - 9000),
    ];
    const { asked, said } = read();
    assert.deepEqual(
      asked.map(({ id, at }) => [`${id}.json`, at.getTime()]),
      [...same.sort().map((one) => [one, NOW - 9000]), [early, NOW - 1000], [late, NOW]],
    );
    assert.deepEqual([asked[0]?.request, said], [NOTE, []]);
  });

  it('is read whole, also when it has as many requests as the view lets wait', () => {
    for (let index = 0; index < 200; index++) put(name());
    assert.equal(read().asked.length, 200);
  });

  it('loses what is no request, each with its name and the reason', () => {
    const wrong: [name: string, content: string | Buffer, reason: string][] = [
      ['note.json', formatRequest(NOTE), 'its name is not that of a request'],
      [name(NOW - ACT_LIFETIME_MS - 1), formatRequest(NOTE), 'its time is too old or in the future'],
      [name(NOW + 300_001), formatRequest(NOTE), 'its time is too old or in the future'],
      [name(NOW, 'server_1_1085355126_00724'), formatRequest(NOTE), 'its name is that of another job'],
      [name(), '{', 'it is not JSON'],
      [name(), Buffer.from('"\xff"', 'latin1'), 'it is not UTF-8'],
      [name(), formatRequest(NOTE).padEnd(8193), 'it is too long'],
    ];
    for (const [one, content] of wrong) put(one, content);
    mkdirSync(join(inbox, 'empty'));
    mkdirSync(join(inbox, 'full'));
    put('full/x');
    const good = [
      put(name(NOW - ACT_LIFETIME_MS)),
      put(name(NOW + 300_000)),
      put(name(), formatRequest(NOTE).padEnd(8192)),
    ];
    const { asked, said } = read();
    assert.deepEqual(asked.map(({ id }) => `${id}.json`).sort(), good.toSorted());
    const removed = (one: string, reason: string): string =>
      `removed ${one} from the inbox, which is not a request: ${reason}`;
    assert.deepEqual(
      said.toSorted(),
      [
        ...wrong.map(([one, , reason]) => removed(one, reason)),
        ...['empty', 'full'].map((one) => removed(one, 'its name is not that of a request')),
        'full in the inbox cannot be removed: EISDIR',
      ].sort(),
    );
    assert.deepEqual(readdirSync(inbox).sort(), [...good, 'full'].sort());
  });

  it('keeps what is being written for ten minutes', () => {
    const writing = (at: number): string => put(`.${makeActId(JOB, at)}.new`);
    const kept = [writing(NOW - 599_000), writing(NOW + 599_000)];
    for (const at of [NOW - 600_000, NOW + 600_000]) writing(at);
    assert.equal(read().said.length, 2);
    assert.deepEqual(readdirSync(inbox).sort(), kept.sort());
  });

  it('holds no descriptor open', () => {
    const count = (): number => readdirSync('/proc/self/fd').length;
    const before = count();
    for (let round = 0; round < 5; round++) {
      put(name());
      put(name(), '{');
      read();
    }
    chmodSync(inbox, 0o770);
    for (let round = 0; round < 5; round++) assert.throws(read);
    assert.equal(count(), before);
  });

  it('that is not safe is refused with its path, the reason and what mends it', () => {
    chmodSync(inbox, 0o770);
    const refused = (pattern: RegExp): void =>
      assert.throws(read, (error) => {
        assert.ok(error instanceof Failure);
        assert.deepEqual(
          [error.kind, pattern.test(`${error.message}\n${error.hints}`)],
          ['failed', true],
          error.message,
        );
        assert.ok(error.message.startsWith(`${inbox} `), error.message);
        return true;
      });
    refused(/ is not safe: users other than its owner can write to it\nchmod 700 \S+inbox$/);
    rmSync(inbox, { recursive: true });
    refused(/ cannot be opened: ENOENT\ndocs\/guide\/view\.md says how to make it$/);
    if (!owner) return;
    mkdirSync(inbox, { mode: 0o700 });
    refused(/ is not safe: it belongs to root\ngive it to the user of the persistent process/);
    giveTo({ uid: 4_000_000, gid: 4_000_000 }, inbox);
    refused(/ is not safe: its owner, user id 4000000, does not exist\ngive it to/);
  });
});
