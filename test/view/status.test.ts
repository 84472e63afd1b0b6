// The status that root writes for the view, in a real browser under a real httpd: problems on the
// overview, missed expectations, assignments with acts on them, golden runs and sealed streams.
// `webjobctl acts` runs when something is in the inbox, as systemd would run it.
import assert from 'node:assert/strict';
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import axe from 'axe-core';
import type { Browser } from 'playwright-core';
import { type HttpdServer, startHttpd } from '../../scripts/httpd.ts';
import { addUser, configure } from '../../scripts/site.ts';
import { MODULES_OF_VIEW, type View as Started, startView } from '../../scripts/view.ts';
import { FIND_FAINT_TEXT, openView, startChromium, type View } from '../support/chromium.ts';
import { type FilledLocker, fillLocker, type LockerSite, makeLockerSite } from '../support/locker-site.ts';
import { waitFor } from '../support/wait.ts';

const READERS = { alice: 'secret', bob: 'secret' };
const HOSTILE = '<script>window.pwned=1</script>';
/** More clients than a page of an assignment has. */
const CLIENTS = 130;
const RECIPIENT = `age1${'q'.repeat(58)}`;
const SEALED = `age-encryption.org/v1\n-> X25519 x\n${'\u0001'.repeat(40)}`;

let its: LockerSite;
let ids: FilledLocker;
let sealed = '';
let browser: Browser;
let server: HttpdServer;
let started: Started;
let url = '';
let inbox = '';
let folder = '';
let isOver = false;
let carrier: Promise<void> | undefined;

before(async () => {
  its = makeLockerSite();
  const { site } = its;
  ids = await fillLocker(its);
  configure(site, { BatchCommand: 'batch' });
  for (let index = 0; index < CLIENTS; index++) addUser(site, `many-${String(index).padStart(3, '0')}`, 'x');
  folder = join(site.base, 'config', 'nph-webjob');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'groups'), 'first = client1\nmany = many-*\nall = first, many\n');
  const rules = [
    `expect client1 host.sh exit=7 golden=${ids.first}`,
    'expect many * every=1h',
    'warn verify 1h',
    'warn certificates 30d',
  ];
  writeFileSync(join(folder, 'expect'), `${rules.join('\n')}\n`);
  // Readable for root only, because a URL in it may be a secret.
  chmodSync(join(folder, 'expect'), 0o600);
  const record = { SealedTo: RECIPIENT, PlainOutBytes: '4', PlainOutSha256: 'f'.repeat(64) };
  sealed = await its.run({ clientId: 'client1', fileName: 'ps.sh', out: SEALED, record: record as object });
  for (const args of [
    ['host.sh', '--to', 'client1,many-*'],
    ['ps.sh', '--to', 'many', '--', HOSTILE],
  ]) {
    const { exitCode, stderr } = await its.webjobctl('assign', ...args);
    assert.equal(exitCode, 0, stderr);
  }
  const way = 'mod_proxy_fcgi';
  started = await startView({ site, way, readers: READERS, isRecorded: true, actors: ['alice'] });
  inbox = join(site.base, 'config', 'webjob-acts', 'inbox');
  server = await startHttpd({ site, mpm: 'event', modules: MODULES_OF_VIEW[way], after: started.lines });
  url = `${server.url}/webjob-view`;
  await waitFor('the index', async () => (await ask('/')).status === 200);
  browser = await startChromium();
});
after(async () => {
  isOver = true;
  await carrier;
  await browser?.close();
  await server?.stop();
  await started?.stop();
  its?.close();
});

const ask = (path: string, init: RequestInit = {}, user = 'alice'): Promise<Response> =>
  fetch(`${url}${path}`, {
    redirect: 'manual',
    ...init,
    headers: { authorization: `Basic ${btoa(`${user}:secret`)}`, ...(init.headers as Record<string, string>) },
  });
async function read(path: string): Promise<string> {
  const answer = await ask(path);
  assert.equal(answer.status, 200, `${path}: ${await answer.clone().text()}`);
  return await answer.text();
}
const readJson = async <Value>(path: string): Promise<Value> => JSON.parse(await read(path)) as Value;
const open = (options = {}): Promise<View> =>
  openView(browser, { httpCredentials: { username: 'alice', password: 'secret' }, ...options });

async function carryOut(): Promise<void> {
  for (; !isOver; await sleep(100)) if (readdirSync(inbox).length > 0) await its.webjobctl('acts');
}

interface Listed {
  at: string | null;
  assignments: { assignment: string; state: string; states: Record<string, number> }[];
  next: string | null;
}

interface One {
  states: Record<string, number>;
  clients: { client: string; state: string }[];
  next: string | null;
}

it('the view explains how to set up the status where root has not', async () => {
  for (const path of ['/', '/assignments', '/missed']) assert.match(await read(path), /see docs\/guide\/view\.md/);
  assert.equal((await ask('/assignment/1')).status, 404);
  assert.deepEqual(await readJson('/assignments.json'), { at: null, assignments: [], next: null });
  const { exitCode, stderr } = await its.webjobctl('acts');
  assert.equal(exitCode, 0, stderr);
  const status = join(its.site.base, 'config', 'webjob-acts', 'answers', 'status.sqlite');
  assert.ok(existsSync(status));
  assert.equal(statSync(status).mode & 0o007, 0, 'everybody reads it');
  carrier = carryOut();
});

describe('the overview', () => {
  it('shows what only root could find out', async () => {
    const page = await read('/');
    assert.match(page, new RegExp(`href="/webjob-view/missed">${CLIENTS + 2} expectations missed<`));
    assert.match(page, /unverified<\/span>.*never verified/);
    const { status, changed } = await readJson<{
      status: Record<string, { problems: number; failure: string | null }>;
      changed: { job: string; earlier: string }[];
    }>('/index.json');
    assert.deepEqual(status.expectations, { problems: CLIENTS + 2, failure: null });
    assert.deepEqual(status.assignments, { problems: 0, failure: null });
    // The last run of host.sh had another output than the one before.
    await waitFor('the comparison', async () => {
      const found = await readJson<{ changed: typeof changed }>('/index.json');
      return found.changed.some(({ job, earlier }) => job === ids.second && earlier === ids.failed);
    });
    assert.match(await read('/'), /\d results? changed<\/span>/);
  });

  it('leads to the expectations, page by page, with a page for each client', async () => {
    const all: string[] = [];
    for (let path: string | null = '/missed.json'; path !== null; ) {
      const page: { missed: { client: string; kind: string }[]; next: string | null } = await readJson(path);
      all.push(...page.missed.map(({ client, kind }) => `${client} ${kind}`));
      path = page.next?.replace('/webjob-view', '') ?? null;
    }
    assert.equal(new Set(all).size, CLIENTS + 2);
    assert.ok(all.includes('client1 exit') && all.includes('client1 output') && all.includes('many-129 late'));
    const page = await read('/client/client1');
    assert.match(page, /Expectations missed[\s\S]*>exit<\/span> it ended with 0 instead of 7/);
    const { missed } = await readJson<{ missed: { kind: string }[] }>('/client/client1.json');
    assert.deepEqual(missed.map(({ kind }) => kind).sort(), ['exit', 'output']);
    assert.equal((await ask('/missed?after=x')).status, 400);
  });
});

describe('the page of assignments', () => {
  it('lists them with their progress, as webjobctl does', async () => {
    const { assignments } = await readJson<Listed>('/assignments.json');
    assert.deepEqual(
      assignments.map(({ assignment, state, states }) => [assignment, state, states.waiting]),
      [
        ['2', 'active', CLIENTS],
        ['1', 'active', CLIENTS + 1],
      ],
    );
    const [shown] = await its.readJson<{ states: Record<string, number> }>('assign', 'show', '1');
    assert.deepEqual(assignments[1]?.states, shown?.states);
  });

  it('lists each client once, page by page', async () => {
    const clients: string[] = [];
    let pages = 0;
    for (let path: string | null = '/assignment/1.json?state=waiting'; path !== null; pages++) {
      const page: One = await readJson<One>(path);
      clients.push(...page.clients.map(({ client }) => client));
      path = page.next?.replace('/webjob-view', '') ?? null;
    }
    assert.deepEqual([pages, new Set(clients).size], [2, CLIENTS + 1]);
    assert.deepEqual((await readJson<One>('/assignment/1.json?state=failed')).clients, []);
    assert.equal((await ask('/assignment/1?state=odd')).status, 400);
    for (const path of ['/assignment/3', '/assignment/x', '/assignment/-1', '/act/assignment/3'])
      assert.ok([400, 404].includes((await ask(path)).status), path);
  });

  it('lets only the group pause and cancel them, on record', async () => {
    const view = await open();
    const { page } = view;
    await page.goto(`${url}/`);
    await page.getByRole('link', { name: 'Assignments', exact: true }).click();
    await page.getByRole('link', { name: /^1: host\.sh/ }).click();
    await page.getByRole('link', { name: 'Pause or cancel' }).click();
    await page.getByLabel('Pause', { exact: true }).getByRole('textbox').fill(HOSTILE);
    await page.getByRole('button', { name: 'Pause' }).click();
    await page.locator('.asked li', { hasText: 'done Pause,' }).waitFor();
    await waitFor('the status', async () => /state warn held">paused/.test(await read('/assignment/1')));
    await page.goto(`${url}/act/assignment/1`);
    assert.equal(await page.getByRole('button', { name: 'Pause' }).count(), 0);
    await page.getByRole('textbox', { name: 'Reason' }).fill('case 4711');
    await page.getByRole('button', { name: 'Cancel' }).click();
    await page.locator('.asked li', { hasText: 'done Cancel,' }).waitFor();
    await waitFor('the status', async () => /">cancelled</.test(await read('/assignment/1')));
    await page.goto(`${url}/assignment/1`);
    const rows = page.getByRole('region', { name: 'Notes and acts' }).locator('tbody tr');
    assert.deepEqual(await rows.locator('td:nth-child(2)').allTextContents(), ['Assigned', 'Changed', 'Changed']);
    const by = await rows.locator('td:nth-child(3)').allTextContents();
    assert.deepEqual(by.slice(1), ['alice (webjob-view)', 'alice (webjob-view)']);
    assert.equal(await page.evaluate('typeof window.pwned'), 'undefined');
    assert.equal(await page.getByRole('link', { name: 'Pause or cancel' }).count(), 0);
    const [shown] = await its.readJson<{ state: string }>('assign', 'show', '1');
    assert.equal(shown?.state, 'cancelled');
    assert.equal((await ask('/act/assignment/2', {}, 'bob')).status, 403);
    const body = new URLSearchParams({ act: 'cancel', text: 'x', token: 'x' });
    const headers = { origin: server.url, 'sec-fetch-site': 'same-origin' };
    for (const user of ['alice', 'bob'])
      assert.equal((await ask('/act/assignment/2', { method: 'POST', headers, body }, user)).status, 403, user);
    // A form for one assignment is refused for another, and for a job.
    const form = await (await ask('/act/assignment/2')).text();
    const [, token = ''] = /value="cancel"><input type="hidden" name="token" value="([^"]+)"/.exec(form) ?? [];
    assert.notEqual(token, '');
    for (const path of ['/act/assignment/1', `/act/job/${ids.second}`]) {
      const fields = new URLSearchParams({ act: 'cancel', text: 'x', token });
      assert.ok([400, 403].includes((await ask(path, { method: 'POST', headers, body: fields })).status), path);
    }
    const [other] = await its.readJson<{ state: string }>('assign', 'show', '2');
    assert.equal(other?.state, 'active');
    assert.deepEqual(view.complaints, []);
    await view.close();
  });
});

describe('a filter of jobs', () => {
  it('accepts groups wherever it accepts clients', async () => {
    const find = async (client: string): Promise<Set<string>> => {
      const { jobs } = await readJson<{ jobs: { client: string }[] }>(
        `/jobs.json?client=${encodeURIComponent(client)}`,
      );
      return new Set(jobs.map((job) => job.client));
    };
    assert.deepEqual(await find('first'), new Set(['client1']));
    assert.deepEqual(await find('all'), new Set(['client1']));
    assert.deepEqual(await find('many'), new Set());
    assert.deepEqual([...(await find('first,client2'))].sort(), ['client1', 'client2']);
    assert.deepEqual([...(await find('many,client?'))].sort(), ['client1', 'client2']);
  });
});

describe('the page of a job', () => {
  it('is compared with its golden run', async () => {
    const view = await open();
    await view.page.goto(`${url}/job/${ids.second}`);
    await view.page.getByRole('link', { name: 'Compare with the golden run' }).click();
    assert.match((await view.page.locator('pre.diff').textContent()) ?? '', /\+after/);
    assert.match(view.page.url(), /from=golden/);
    assert.doesNotMatch(await read(`/job/${ids.first}`), /golden run/);
    assert.equal((await ask(`/diff?from=golden&to=${ids.killed}`)).status, 404);
    await view.close();
  });

  it('shows that its sealed streams are sealed, and not their content', async () => {
    const page = await read(`/job/${sealed}`);
    assert.match(page, new RegExp(`Sealed</span> The view cannot open it.*\\n.*sealed to ${RECIPIENT.slice(0, 30)}`));
    assert.doesNotMatch(page, /X25519/);
    assert.match(page, new RegExp(`webjobctl show ${sealed} --out --identity FILE`));
    const diff = await read(`/diff?from=${ids.killed}&to=${sealed}`);
    assert.match(diff, /is sealed to .*webjobctl diff --identity compares it/);
  });
});

async function findViolations({ page }: View): Promise<string[]> {
  const options = "{ resultTypes: ['violations'], rules: { 'color-contrast': { enabled: false } } }";
  const { violations, passes } = await page.evaluate<axe.AxeResults>(`${axe.source}; axe.run(${options})`);
  assert.ok(passes.length > 10, 'axe looked at nothing');
  return violations.map(({ id }) => id);
}

for (const [width, colorScheme] of [
  [390, 'dark'],
  [768, 'light'],
  [1280, 'light'],
] as const) {
  it(`is legible at ${width} pixels, in ${colorScheme} colours`, async () => {
    const view = await open({ viewport: { width, height: 900 }, colorScheme });
    for (const path of [
      ...['/', '/missed', '/assignments', '/assignment/1', '/assignment/2?state=waiting', '/act/assignment/2'],
      ...['/act/assignment/1', `/job/${sealed}`, '/client/client1', `/diff?from=golden&to=${ids.second}`],
    ]) {
      await view.page.goto(url + path);
      const looked = await view.page.evaluate<{ width: number; faint: string[]; pwned: string }>(
        `({ width: document.documentElement.scrollWidth, faint: ${FIND_FAINT_TEXT}.faint, pwned: typeof window.pwned })`,
      );
      assert.deepEqual(looked, { width, faint: [], pwned: 'undefined' }, path);
      // The findings of axe do not depend on the width; the colours are measured above.
      if (width === 1280) assert.deepEqual(await findViolations(view), [], path);
    }
    assert.deepEqual(view.complaints, []);
    await view.close();
  });
}

it('the page of assignments lists more than fit on it once each', async () => {
  const path = join(folder, 'assignments');
  const { id: _, ...facts } = JSON.parse(readFileSync(path, 'utf8').split('\n')[0] ?? '');
  // So many that the last page is full.
  const { assignments: known } = await readJson<Listed>('/assignments.json');
  const many = Array.from(
    { length: 100 - known.length },
    (_, index) => `${JSON.stringify({ id: String(100 + index), ...facts })}\n`,
  );
  appendFileSync(path, many.join(''));
  utimesSync(join(its.site.base, 'config', 'webjob-acts', 'answers', 'status.sqlite'), 0, 0);
  assert.equal((await its.webjobctl('acts')).exitCode, 0);
  const found: string[] = [];
  for (let page: string | undefined = '/assignments.json'; page !== undefined; ) {
    const { assignments, next }: Listed = await readJson<Listed>(page);
    assert.notEqual(assignments.length, 0, page);
    found.push(...assignments.map(({ assignment }) => assignment));
    page = next?.replace('/webjob-view', '');
  }
  assert.equal(new Set(found).size, found.length);
  assert.ok(many.every((_, index) => found.includes(String(100 + index))));
});

it('the access record has requests about assignments', () => {
  const lines = readFileSync(join(started.folder, 'access.jsonl'), 'utf8').trimEnd().split('\n');
  const acts = lines.map((line) => JSON.parse(line)).filter(({ act, status }) => act !== undefined && status === 303);
  assert.deepEqual(
    acts.map(({ user, path, act }) => [user, path, act]),
    [
      ['alice', '/act/assignment/1', 'pause'],
      ['alice', '/act/assignment/1', 'cancel'],
    ],
  );
});
