// Notes, and acts requested in the view: runs `webjobctl acts` as root on an inbox in which its
// owner may have put anything.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { parseNote } from '../../admin/acts/note.ts';
import { type ActAnswer, type ActRequest, formatRequest, makeActId, subjectOf } from '../../admin/acts/request.ts';
import type { Directive } from '../../admin/configtest/httpd.ts';
import { checkView } from '../../admin/configtest/view.ts';
import { readSite } from '../../admin/site/site.ts';
import { configure } from '../../scripts/site.ts';
import { findReader } from '../../scripts/view.ts';
import { type FilledLocker, fillLocker, type LockerSite, makeLockerSite, type Ran } from '../support/locker-site.ts';
import { plantPast } from '../support/past-site.ts';
import { findWebUser } from '../support/tree.ts';

const isRoot = process.getuid?.() === 0;
const owner = isRoot ? findReader() : undefined;

let its: LockerSite;
let ids: FilledLocker;
let folder = '';
let inbox = '';
let answers = '';

before(async () => {
  its = makeLockerSite();
  ids = await fillLocker(its);
  folder = join(its.site.base, 'config', 'webjob-acts');
  inbox = join(folder, 'inbox');
  answers = join(folder, 'answers');
});
after(() => its?.close());
beforeEach(() => {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(dirname(folder), { recursive: true });
  mkdirSync(folder, { mode: 0o755 });
  makeInbox();
});

function makeInbox(): void {
  mkdirSync(inbox, { mode: 0o700 });
  if (owner) chownSync(inbox, owner.uid, owner.gid);
}

const acts = (...args: string[]): Promise<Ran> => its.webjobctl('--json', 'acts', ...args);

/** A file in the inbox that belongs to its owner. */
function put(name: string, content: string | Buffer): string {
  const path = join(inbox, name);
  writeFileSync(path, content);
  if (owner) chownSync(path, owner.uid, owner.gid);
  return path;
}

function ask(request: Partial<ActRequest> & Pick<ActRequest, 'act'>, at = Date.now()): string {
  const whole = { job: ids.second, client: 'client1', user: 'anna', text: undefined, stream: undefined, ...request };
  const id = makeActId(subjectOf(whole), at);
  put(`${id}.json`, formatRequest(whole));
  return id;
}

const answerOf = (id: string): ActAnswer => JSON.parse(readFileSync(join(answers, `${id}.json`), 'utf8'));
const linesOf = ({ text }: Ran): ActAnswer[] => text.split('\n').flatMap((line) => (line ? [JSON.parse(line)] : []));

interface Shown {
  acts: { event: string; kind: string; at: string; by: string; text: string }[];
}
async function readActs(job = ids.second): Promise<Shown['acts']> {
  const [shown] = await its.readJson<Shown>('show', job);
  return shown?.acts ?? [];
}
/** The record of webjobctl, newest entry last. */
function readEvents(): Record<string, unknown>[] {
  const path = join(its.site.base, 'logfiles', 'nph-webjob-custody.webjobctl.jsonl');
  if (!existsSync(path)) return [];
  return readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
}

describe('webjobctl note', () => {
  it('records a note, which show, the report and a package contain', async () => {
    const text = 'looked at <b>"it"</b> — nothing';
    const { exitCode, stderr } = await its.webjobctl('note', ids.first.slice(-11), text);
    assert.equal(exitCode, 0, stderr);
    const [note] = await readActs(ids.first);
    assert.deepEqual({ ...note, at: '', by: '' }, { event: 'note', kind: 'job', at: '', by: '', text });
    assert.ok(Math.abs(Date.parse(note?.at ?? '') - Date.now()) < 60_000);
    assert.match((await its.webjobctl('show', ids.first)).text, /^Acts: .* note by \S+: looked at <b>"it"<\/b>/m);
    const report = join(its.site.root, 'report');
    await its.webjobctl('report', '--html', report);
    const [page = ''] = readdirSync(join(report, 'job')).filter((name) => name.includes(ids.first));
    assert.match(readFileSync(join(report, 'job', page), 'utf8'), /looked at &lt;b&gt;&quot;it&quot;&lt;\/b&gt;/);
    const bag = join(its.site.root, 'package');
    assert.equal((await its.webjobctl('evidence', ids.first, '--out', bag)).exitCode, 0);
    const entry = readFileSync(join(bag, 'data/jobs', `0001-${ids.first}`, 'record-1.json'), 'utf8');
    assert.match(entry, /"event":"note","jobId":"[^"]+","text":"looked at/);
    assert.match(readFileSync(join(bag, 'pages', `0001-${ids.first}.html`), 'utf8'), /<td>Note<\/td>.*looked at/);
    assert.equal((await its.webjobctl('evidence', '--verify', bag)).exitCode, 0);
    // Other acts are not for the recipient.
    const [, handedOver] = await readActs(ids.first);
    assert.equal(handedOver?.event, 'evidence');
    assert.doesNotMatch(readFileSync(join(bag, 'pages', `0001-${ids.first}.html`), 'utf8'), /Handed over/);
    assert.equal((await its.webjobctl('verify', '--custody')).exitCode, (await its.webjobctl('verify')).exitCode);
  });

  it('accepts one line of text and one job', async () => {
    const events = readEvents().length;
    for (const text of ['', '  ', 'a\nb', 'a\x1b[31mb', 'a\u202eb', 'x'.repeat(1001)])
      assert.equal((await its.webjobctl('note', ids.first, text)).exitCode, 2, JSON.stringify(text));
    assert.equal((await its.webjobctl('note', 'server_1', 'x')).exitCode, 2);
    assert.equal((await its.webjobctl('note', 'nothing', 'x')).exitCode, 1);
    // Characters count, whatever their place in Unicode.
    assert.equal(parseNote('\u{1f600}'.repeat(1000)).length, 2000);
    assert.throws(() => parseNote('\u{1f600}'.repeat(1001)), /longer than 1000 characters/);
    // Nobody reads the notes of an id that no server issues.
    const [{ jobId = '' } = {}] = plantPast(its.site, 'UTC', [
      { at: new Date(0), jobId: 'x'.repeat(256), put: false, out: false },
    ]);
    const { exitCode, stderr } = await its.webjobctl('note', jobId, 'x');
    assert.deepEqual([exitCode, /a note needs a job with an id of the server/.test(stderr)], [2, true], stderr);
    assert.equal(readEvents().length, events);
  });
});

describe('webjobctl acts', () => {
  it('carries out each act with the code of the command, in the name of the user', async () => {
    const asked = [
      ask({ act: 'verify' }, Date.now() - 6),
      ask({ act: 'hold', text: 'case 4711' }, Date.now() - 5),
      ask({ act: 'note', text: 'Zoë looked' }, Date.now() - 4),
      ask({ act: 'download', stream: 'out' }, Date.now() - 3),
      ask({ act: 'package' }, Date.now() - 2),
    ];
    const ran = await acts();
    assert.equal(ran.exitCode, 0, ran.stderr);
    assert.deepEqual(
      linesOf(ran).map(({ id, state, user }) => [id, state, user]),
      asked.map((id) => [id, 'done', 'anna']),
    );
    assert.deepEqual(readdirSync(inbox), []);
    const done = await readActs();
    assert.deepEqual(
      done.map(({ event, by }) => [event, by]),
      ['verify', 'hold', 'note', 'download', 'evidence'].map((event) => [event, 'anna (webjob-view)']),
    );
    assert.deepEqual(
      done.slice(0, 4).map(({ text }) => text),
      ['verified', 'case 4711', 'Zoë looked', '.out'],
    );
    const holds = await its.readJson<{ id: string; by: string }>('hold', 'list');
    assert.deepEqual(
      holds.map(({ id, by }) => [id, by]),
      [[ids.second, 'anna (webjob-view)']],
    );
    const bag = `${answers}/${asked[4]}.zip`;
    const listed = spawnSync('unzip', ['-l', bag], { encoding: 'utf8' });
    if (!listed.error) assert.match(listed.stdout, /tagmanifest-sha256\.txt/);
    if (owner) {
      const { uid, gid, mode } = statSync(bag);
      assert.deepEqual([uid, gid, mode & 0o777], [0, owner.gid, 0o640]);
      assert.deepEqual([statSync(answers).uid, statSync(answers).mode & 0o777], [0, 0o750]);
    }
    assert.deepEqual(
      readdirSync(answers).filter((name) => !/\.(json|zip|sqlite)$/.test(name)),
      [],
    );
    const release = ask({ act: 'release', text: 'closed' });
    assert.equal((await acts()).exitCode, 0);
    assert.equal(answerOf(release).words, 'no longer on hold');
    assert.deepEqual(await its.readJson('hold', 'list'), []);
  });

  it('reports the findings of a job that does not verify', async () => {
    const [{ group = '' } = {}] = await its.readJson<{ group: string }>('show', ids.failed);
    const path = join(its.site.incoming, `${group}.err`);
    const was = readFileSync(path);
    writeFileSync(path, 'host.sh: all is well\n');
    try {
      const id = ask({ act: 'verify', job: ids.failed });
      assert.equal((await acts()).exitCode, 0);
      assert.match(answerOf(id).words, /^(?:size|digest|content)\S* .*\.err: /);
      const [act] = await readActs(ids.failed);
      assert.equal(act?.text, answerOf(id).words);
      assert.ok(Number(readEvents().at(-1)?.findings) > 0);
    } finally {
      writeFileSync(path, was);
    }
  });

  it('carries out a repeated request once, and never repeats an interrupted act', async () => {
    const id = ask({ act: 'note', text: 'once' });
    const request = readFileSync(join(inbox, `${id}.json`));
    await acts();
    const count = (await readActs()).length;
    put(`${id}.json`, request);
    assert.deepEqual(linesOf(await acts()), []);
    writeFileSync(join(answers, `${id}.json`), JSON.stringify({ ...answerOf(id), state: 'started' }));
    put(`${id}.json`, request);
    assert.equal((await acts()).exitCode, 1);
    assert.deepEqual([answerOf(id).state, (await readActs()).length], ['failed', count]);
    assert.deepEqual(readdirSync(inbox), []);
  });

  it('carries out only the acts that --allow names', async () => {
    const count = readEvents().length;
    const [note, verify] = [ask({ act: 'note', text: 'x' }), ask({ act: 'verify' })];
    const ran = await acts('--allow', 'verify,hold');
    assert.equal(ran.exitCode, 1);
    assert.deepEqual([answerOf(note).state, answerOf(verify).state], ['failed', 'done']);
    assert.equal(readEvents().length, count + 1);
    assert.equal((await acts('--allow', 'prune')).exitCode, 2);
  });

  it('removes answers after a day, with their packages', async () => {
    const then = Date.now() - 25 * 3_600_000;
    mkdirSync(answers);
    const [old, young] = [makeActId(ids.second, then), makeActId(ids.second, Date.now())];
    for (const id of [old, young])
      for (const end of ['json', 'zip']) writeFileSync(join(answers, `${id}.${end}`), '{}');
    mkdirSync(join(answers, `.${young}.1.new`));
    await acts();
    assert.deepEqual(readdirSync(answers).sort(), [`${young}.json`, `${young}.zip`, 'status.sqlite']);
  });

  it('removes files that are not requests, follows no link, and never blocks', async () => {
    const events = readEvents().length;
    const secret = join(its.site.root, 'secret.json');
    const good = { job: ids.second, client: 'client1', user: 'anna', text: 'taken', stream: undefined } as const;
    const request = formatRequest({ act: 'note', ...good });
    writeFileSync(secret, request, { mode: 0o600 });
    const name = (job: string = ids.second, at = Date.now()): string => `${makeActId(job, at)}.json`;
    const changed = (change: Record<string, unknown>): string => JSON.stringify({ act: 'note', ...good, ...change });
    symlinkSync(secret, join(inbox, name()));
    symlinkSync(join(its.site.root, 'nowhere'), join(inbox, name()));
    const other = join(its.site.root, 'other.json');
    rmSync(other, { force: true });
    writeFileSync(other, request);
    if (owner) chownSync(other, owner.uid, owner.gid);
    linkSync(other, join(inbox, name()));
    if (isRoot) {
      // A file of another user, which the inbox's owner can have moved there from a shared
      // directory.
      writeFileSync(join(inbox, name()), request);
      assert.equal(spawnSync('mkfifo', [join(inbox, name())]).status, 0);
    }
    mkdirSync(join(inbox, name()));
    mkdirSync(join(inbox, 'full'));
    writeFileSync(join(inbox, 'full', 'x'), '');
    const bad: (string | Buffer)[] = [
      ...['', '{', '[]', 'null', '"x"', '{}', `${request}x`, 'x'.repeat(10_000_000), request.padEnd(8193, ' ')],
      Buffer.from(request.replace('taken', 'ta\xffken'), 'latin1'),
      ...[{ act: 'prune' }, { act: 'constructor' }, { act: ['note'] }, { act: 'note', extra: 1 }],
      ...[{ job: '../../etc/passwd' }, { job: '' }, { job: 7 }, { job: `${ids.second}\n` }],
      ...[{ client: '*' }, { client: '../x' }, { client: 1 }],
      ...[{ user: '' }, { user: undefined }, { user: 'a\nb' }, { user: '\x1b[31m' }, { user: 'x'.repeat(256) }],
      ...[{ text: '' }, { text: undefined }, { text: 'a\nb' }, { text: '\u202etxt' }, { text: 'x'.repeat(1001) }],
      ...[{ stream: 'out' }, { act: 'download', text: undefined, stream: 'rdy' }, { act: 'verify' }],
      ...[{ act: 'download', text: undefined, stream: '__proto__' }],
      ...[
        { act: 'pause' },
        { assignment: '1' },
        { act: 'pause', assignment: '1' },
        { job: undefined, assignment: '1' },
      ],
      ...['0', '-1', '1/2', 1].map((assignment) => ({ act: 'cancel', job: undefined, assignment })),
    ].map((one) => (typeof one === 'string' || Buffer.isBuffer(one) ? one : changed(one as Record<string, unknown>)));
    for (const content of bad) put(name(), content);
    for (const at of [Date.now() - 25 * 3_600_000, Date.now() + 3_600_000, 0]) put(name(ids.second, at), request);
    put(name(ids.first), request);
    put('note.json', request);
    put(`..${name()}`, request);
    put(name().toUpperCase(), request);
    const one = ask({ act: 'note', text: 'the only one' });
    // A file that is being written is left alone.
    const writing = `.${makeActId(ids.second, Date.now())}.new`;
    put(writing, request);
    const ran = await acts();
    assert.equal(ran.exitCode, 0, ran.stderr);
    assert.deepEqual(
      linesOf(ran).map(({ id }) => id),
      [one],
    );
    assert.equal(readEvents().length, events + 1);
    assert.equal(readFileSync(secret, 'utf8'), request);
    assert.deepEqual(readdirSync(inbox).sort(), [writing, 'full'].sort());
    assert.deepEqual(readdirSync(answers).sort(), [`${one}.json`, 'status.sqlite']);
    assert.doesNotMatch(ran.stderr, /[\x00-\x09\x0b-\x1f]|\u202e/);
    // An archived name and a missing one are equivalent.
    assert.match(ran.stderr, /removed \S+ from the inbox, which is not a request: ELOOP/);
  });

  it('refuses an inbox that other users can write to or replace', { skip: !isRoot }, async () => {
    const web = findWebUser();
    const refuse = async (what: string, pattern: RegExp): Promise<void> => {
      ask({ act: 'note', text: 'x' });
      const count = readEvents().length;
      const ran = await acts();
      assert.equal(ran.exitCode, 4, what);
      assert.match(ran.stderr, pattern, what);
      assert.equal(readEvents().length, count, what);
    };
    chmodSync(inbox, 0o770);
    await refuse('a group', /is not safe: users other than its owner can write/);
    chmodSync(inbox, 0o700);
    chownSync(inbox, web?.uid ?? 0, web?.gid ?? 0);
    await refuse('the web user', /who can write to the locker/);
    chownSync(inbox, 0, 0);
    await refuse('root', /it belongs to root/);
    chownSync(inbox, owner?.uid ?? 0, owner?.gid ?? 0);
    chownSync(folder, owner?.uid ?? 0, owner?.gid ?? 0);
    await refuse('the folder above', /users other than root can replace/);
    chownSync(folder, 0, 0);
    rmSync(inbox, { recursive: true });
    const elsewhere = join(its.site.root, 'elsewhere');
    mkdirSync(elsewhere, { mode: 0o700 });
    symlinkSync(elsewhere, inbox);
    await refuse('a link', /inbox cannot be opened: E(?:LOOP|NOTDIR)/);
    assert.equal(lstatSync(inbox).isSymbolicLink(), true);
    rmSync(inbox);
    const none = await acts();
    assert.equal(none.exitCode, 4);
    assert.match(none.stderr, /inbox cannot be opened: ENOENT[\s\S]*hint: /);
  });

  it('packages only the job with exactly this id', async () => {
    const id = ask({ act: 'package', job: ids.second.slice(0, -1), client: undefined });
    assert.equal((await acts()).exitCode, 1);
    assert.equal(answerOf(id).state, 'failed');
    assert.deepEqual(readdirSync(answers), [`${id}.json`, 'status.sqlite']);
  });
});

describe('monitoring of acts', () => {
  it('counts waiting acts in metrics, with the time of the oldest', async () => {
    const read = async (): Promise<Map<string, number>> =>
      new Map(
        (await its.readJson<{ name: string; value: number }>('metrics', '--textfile', '-')).map((one) => [
          one.name,
          one.value,
        ]),
      );
    assert.equal((await read()).get('webjob_view_acts_waiting'), 0);
    const id = ask({ act: 'verify' });
    ask({ act: 'note', text: 'x' });
    const asked = Date.now() / 1000 - 1000;
    utimesSync(join(inbox, `${id}.json`), asked, asked);
    const waiting = await read();
    assert.equal(waiting.get('webjob_view_acts_waiting'), 2);
    assert.ok(Math.abs((waiting.get('webjob_view_oldest_act_timestamp_seconds') ?? 0) - asked) < 1);
    rmSync(inbox, { recursive: true });
    assert.equal((await read()).has('webjob_view_acts_waiting'), false);
  });

  it('reports errors of the view in configtest', async () => {
    const { settings } = readSite(its.site.propertiesFile);
    const state = join(its.site.root, 'state');
    const socket = join(its.site.root, 'view.sock');
    mkdirSync(state, { mode: 0o700 });
    if (owner) chownSync(state, owner.uid, owner.gid);
    const say = (name: string, value: string): Directive => ({
      name,
      value,
      where: 'httpd.conf:1',
      sections: ['Directory "/x"', 'Files "webjob-view.cgi"'],
    });
    const directives = [
      say('SetEnv', `WEBJOB_VIEW_DIRECTORY "${state}"`),
      say('SetEnv', 'WEBJOB_VIEW_ACTS on'),
      say('SetHandler', `"proxy:unix:${socket}|fcgi://localhost/"`),
    ];
    const check = async (): Promise<string[]> =>
      (await checkView(settings, directives)).filter(({ severity }) => severity !== 'note').map(({ what }) => what);
    assert.deepEqual(await checkView(settings, [say('SetEnv', 'OTHER x')]), []);
    assert.match((await check()).join(), /^the process of the view does not answer at .*: ENOENT$/);
    const listening = createServer().listen(socket);
    try {
      await new Promise((resolve) => listening.once('listening', resolve));
      assert.deepEqual(await check(), []);
      const id = ask({ act: 'verify' });
      assert.deepEqual(await check(), []);
      const then = Date.now() / 1000 - 600;
      utimesSync(join(inbox, `${id}.json`), then, then);
      assert.match((await check()).join(), /^an act waits since .*, and nothing carries them out$/);
      for (const mode of [0o720, 0o702]) {
        chmodSync(state, mode);
        chmodSync(inbox, 0o700);
        assert.match((await check()).join(), /^others can write to the directory of the view,an act waits/);
        chmodSync(state, 0o755);
        chmodSync(inbox, mode);
        assert.match((await check()).join(), /^[^\n]*inbox is not safe: users other than its owner/);
      }
      chmodSync(inbox, 0o777);
      chmodSync(state, 0o777);
      const wrong = await check();
      assert.match(
        wrong.join('\n'),
        /^others can write to the directory of the view\n.*inbox is not safe: users other than its owner/,
      );
      rmSync(state, { recursive: true });
      assert.match((await check()).join(), /^the directory of the view is missing/);
      const web = findWebUser();
      if (!web) return;
      mkdirSync(state, { mode: 0o700 });
      chownSync(state, web.uid, web.gid);
      assert.match((await check()).join(), /^the view runs as www-data, who can write to the locker/);
    } finally {
      listening.close();
    }
  });

  it('prints the page of a job in show when ViewURL is set', async () => {
    assert.doesNotMatch((await its.webjobctl('show', ids.second)).text, /^Page:/m);
    configure(its.site, { ViewURL: 'https://a.example/webjob-view/' });
    try {
      const page = `https://a.example/webjob-view/job/${ids.second}`;
      assert.match((await its.webjobctl('show', ids.second)).text, new RegExp(`^Page: +${page}$`, 'm'));
      const [shown] = await its.readJson<{ page: string }>('show', ids.second);
      assert.equal(shown?.page, page);
    } finally {
      configure(its.site, { ViewURL: '' });
    }
  });
});
