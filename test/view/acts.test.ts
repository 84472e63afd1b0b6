// Acts in the view, in a real browser under a real httpd: the group can act, and nobody else can.
// `webjobctl acts` runs when something is in the inbox, as systemd would run it.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import axe from 'axe-core';
import type { Browser } from 'playwright-core';
import { type HttpdServer, startHttpd } from '../../scripts/httpd.ts';
import { MODULES_OF_VIEW, type View as Started, startView } from '../../scripts/view.ts';
import { makeToken } from '../../view/acting.ts';
import { FIND_FAINT_TEXT, openView, startChromium, type View } from '../support/chromium.ts';
import { type FilledLocker, fillLocker, type LockerSite, makeLockerSite } from '../support/locker-site.ts';
import { waitFor } from '../support/wait.ts';

const READERS = { alice: 'secret', bob: 'secret', carol: 'secret' };
const SCRIPT = '<script>window.pwned=1</script>"><img src=x onerror=window.pwned=2>';

let its: LockerSite;
let ids: FilledLocker;
let browser: Browser;
let server: HttpdServer;
let started: Started;
let url = '';
let inbox = '';
let isCarriedOut = true;
let isOver = false;
let carrier: Promise<void> | undefined;

before(async () => {
  its = makeLockerSite();
  ids = await fillLocker(its);
  const { site } = its;
  inbox = join(site.base, 'config', 'webjob-acts', 'inbox');
  const way = 'mod_proxy_fcgi';
  started = await startView({ site, way, readers: READERS, isRecorded: true, actors: ['alice', 'carol'] });
  server = await startHttpd({ site, mpm: 'event', modules: MODULES_OF_VIEW[way], after: started.lines });
  url = `${server.url}/webjob-view`;
  await waitFor('the index', async () => (await ask('/')).status === 200);
  browser = await startChromium();
  carrier = carryOut();
});
after(async () => {
  isOver = true;
  await carrier;
  await browser?.close();
  await server?.stop();
  await started?.stop();
  its?.close();
});

async function carryOut(): Promise<void> {
  for (; !isOver; await sleep(100)) if (isCarriedOut && readdirSync(inbox).length > 0) await its.webjobctl('acts');
}

const authorization = (user: string): string => `Basic ${btoa(`${user}:secret`)}`;
const ask = (path: string, init: RequestInit = {}, user = 'alice'): Promise<Response> =>
  fetch(`${url}${path}`, {
    redirect: 'manual',
    ...init,
    headers: { authorization: authorization(user), ...(init.headers as Record<string, string>) },
  });
const open = (username = 'alice', options = {}): Promise<View> =>
  openView(browser, { httpCredentials: { username, password: 'secret' }, ...options });

/** The hidden fields of the form for an act on the page of acts. */
async function readForm(act: string, job = ids.second, user = 'alice'): Promise<Record<string, string>> {
  const answer = await ask(`/act/job/${job}`, {}, user);
  const text = await answer.text();
  assert.equal(answer.status, 200, text);
  const [, token = ''] =
    new RegExp(`name="act" value="${act}"><input type="hidden" name="token" value="([^"]+)"`).exec(text) ?? [];
  assert.notEqual(token, '', act);
  return { act, token };
}

const OWN = (): Record<string, string> => ({ origin: server.url, 'sec-fetch-site': 'same-origin' });
const post = (
  fields: Record<string, string>,
  headers: Record<string, string> = OWN(),
  { job = ids.second, user = 'alice' } = {},
): Promise<Response> => ask(`/act/job/${job}`, { method: 'POST', headers, body: new URLSearchParams(fields) }, user);

interface Act {
  event: string;
  by: string;
  text: string;
}
async function readActs(job = ids.second): Promise<Act[]> {
  const [{ acts = [] } = {}] = await its.readJson<{ acts: Act[] }>('show', job);
  return acts;
}

/** The form had no effect: there is neither a record nor a request. */
async function nothingCameOf(attack: () => Promise<Response>, status: number | number[], what: string): Promise<void> {
  const before = (await readActs()).length;
  const answer = await attack();
  assert.ok([status].flat().includes(answer.status), `${what}: ${answer.status}: ${await answer.clone().text()}`);
  await waitFor('an empty inbox', () => readdirSync(inbox).length === 0);
  assert.equal((await readActs()).length, before, what);
}

describe("a user of the operators' group", () => {
  it('verifies, notes, holds and releases from the page of a job, and sees the result', async () => {
    const view = await open();
    const { page } = view;
    await page.goto(`${url}/job/${ids.second}`);
    await page.getByRole('link', { name: 'Verify, note, hold, download' }).click();
    await page.getByRole('button', { name: 'Verify now' }).click();
    // On a busy machine it takes longer than the form waits, and the page reloads by itself.
    const isDone = (act: string): Promise<void> => page.locator('.asked li', { hasText: `done ${act},` }).waitFor();
    await isDone('Verify');
    assert.match(
      (await page.locator('.asked li').last().textContent()) ?? '',
      /^done Verify, .* by alice, .*: verified$/,
    );
    await page.getByRole('textbox', { name: 'Note' }).fill(SCRIPT);
    await page.getByRole('button', { name: 'Add note' }).click();
    await isDone('Note');
    await page.getByRole('textbox', { name: 'Reason' }).fill('case 4711');
    await page.getByRole('button', { name: 'Put on hold' }).click();
    await page.getByRole('button', { name: 'Release' }).waitFor();
    assert.equal(await page.locator('.state.held').count(), 1);
    await page.goto(`${url}/job/${ids.second}`);
    const rows = page.getByRole('region', { name: 'Notes and acts' }).locator('tbody tr');
    assert.match((await rows.nth(1).textContent()) ?? '', /Notealice \(webjob-view\)<script>window\.pwned=1/);
    assert.equal(await page.evaluate('typeof window.pwned'), 'undefined');
    await page.goto(`${url}/act/job/${ids.second}`);
    await page.getByRole('textbox', { name: 'Reason' }).fill('closed');
    await page.getByRole('button', { name: 'Release' }).click();
    await page.getByRole('button', { name: 'Put on hold' }).waitFor();
    assert.deepEqual(
      (await readActs()).map(({ event, by, text }) => [event, by, text]),
      [
        ['verify', 'alice (webjob-view)', 'verified'],
        ['note', 'alice (webjob-view)', SCRIPT],
        ['hold', 'alice (webjob-view)', 'case 4711'],
        ['release', 'alice (webjob-view)', 'closed'],
      ],
    );
    assert.deepEqual(view.complaints, []);
    await view.close();
  });

  it('downloads a stream and a package, each on record, and no other user can', async () => {
    const view = await open();
    const { page } = view;
    await page.goto(`${url}/act/job/${ids.first}`);
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('button', { name: 'Download', exact: true }).click(),
    ]);
    assert.equal(readFileSync(await download.path(), 'utf8'), 'kept\nbefore\n');
    await page.getByRole('button', { name: 'Make a package' }).click();
    const link = page.getByRole('link', { name: 'Download' }).nth(1);
    await link.waitFor();
    const [zip] = await Promise.all([page.waitForEvent('download'), link.click()]);
    assert.match(zip.suggestedFilename(), /\.zip$/);
    assert.equal(readFileSync(await zip.path()).toString('latin1', 0, 4), 'PK\x03\x04');
    const events = (await readActs(ids.first)).map(({ event }) => event);
    assert.deepEqual(events, ['download', 'evidence']);
    const hrefs = await page.evaluate<string[]>(
      "[...document.querySelectorAll('.asked a')].map((link) => link.pathname)",
    );
    assert.equal(hrefs.length, 2);
    for (const href of hrefs) {
      const path = href.slice('/webjob-view'.length);
      assert.equal((await ask(path)).status, 200);
      assert.equal((await ask(path, {}, 'carol')).status, 404, 'another of the group');
      assert.equal((await ask(path, {}, 'bob')).status, 403, 'a reader');
    }
    await view.close();
  });

  it('is told that a request waits while nobody processes it, and what failed', async () => {
    isCarriedOut = false;
    try {
      const asked = await post({ ...(await readForm('note')), text: 'later' });
      assert.equal(asked.status, 303);
      const behind = asked.headers.get('location') ?? '';
      assert.match(behind, new RegExp(`/act/job/${ids.second}\\?asked=1#asked$`));
      const waiting = await ask(`/act/job/${ids.second}?asked=1`);
      assert.equal(waiting.headers.get('refresh'), '3');
      const text = await waiting.text();
      assert.match(text, /waits<\/span> Note, asked .* by alice/);
      // A reload would lose what was typed into a form.
      assert.doesNotMatch(text, /<form class="act-form"/);
      const forms = await ask(`/act/job/${ids.second}`);
      assert.equal(forms.headers.get('refresh'), null);
      assert.match(await forms.text(), /<form class="act-form"/);
      assert.match(await (await ask(`/job/${ids.second}`, {}, 'bob')).text(), /waits<\/span> Note/);
    } finally {
      isCarriedOut = true;
    }
    await waitFor('the note', async () => (await readActs()).at(-1)?.text === 'later');
    // The job has no upload that could be verified.
    assert.equal((await post(await readForm('verify', ids.got), OWN(), { job: ids.got })).status, 303);
    assert.match(await (await ask(`/act/job/${ids.got}`)).text(), /failed<\/span> Verify, .*: no upload has a job id/);
  });
});

describe('a request to act', () => {
  it('is refused from users outside the group, whatever it claims', async () => {
    const token = await readForm('note');
    const body = { ...token, text: 'by bob' };
    const marks = {
      'WEBJOB-VIEW-ACTOR': 'yes',
      WEBJOB_VIEW_ACTOR: 'yes',
      'X-Webjob-View-Actor': 'yes',
      Proxy: 'WEBJOB_VIEW_ACTOR=yes',
      'Remote-User': 'alice',
      'REDIRECT-WEBJOB-VIEW-ACTOR': 'yes',
    };
    await nothingCameOf(() => post(body, { ...OWN(), ...marks }, { user: 'bob' }), 403, 'a reader with marks');
    assert.equal((await ask(`/act/job/${ids.second}`, { headers: marks }, 'bob')).status, 403);
    const without = (): Promise<Response> =>
      fetch(`${url}/act/job/${ids.second}`, { method: 'POST', headers: OWN(), body: new URLSearchParams(body) });
    await nothingCameOf(without, 401, 'nobody');
    // Ways to the program other than the one that httpd guards.
    const around = [
      '//act/job/',
      '/./act/job/',
      '/x/../act/job/',
      '/%61ct/job/',
      '/ACT/job/',
      '/act%2fjob/',
      '/;/act/job/',
    ];
    for (const path of around)
      await nothingCameOf(
        () =>
          ask(
            `${path}${ids.second}`,
            { method: 'POST', headers: { ...OWN(), ...marks }, body: new URLSearchParams(body) },
            'bob',
          ),
        [400, 403, 404],
        path,
      );
    // A POST to any other page changes nothing, even for the group.
    for (const path of [`/job/${ids.second}`, '/', `/act/answer/${ids.second}`])
      await nothingCameOf(
        () => ask(path, { method: 'POST', headers: OWN(), body: new URLSearchParams(body) }),
        [400, 403],
        path,
      );
  });

  it("is refused when another site sends it through a user's browser", async () => {
    const fields = async (): Promise<Record<string, string>> => ({ ...(await readForm('note')), text: 'forged' });
    const own = server.url;
    const headers: [string, Record<string, string>][] = [
      ['another site', { origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' }],
      ['another port of the host', { origin: `http://127.0.0.1:${server.secondPort}`, 'sec-fetch-site': 'same-site' }],
      ['an origin that only begins so', { origin: `${own}.evil.example` }],
      ['a page without an origin', { origin: 'null', 'sec-fetch-site': 'cross-site' }],
      ['no origin', {}],
      ['the own origin, but another site', { origin: own, 'sec-fetch-site': 'cross-site' }],
      ['another origin, but the own site', { origin: 'https://evil.example', 'sec-fetch-site': 'same-origin' }],
    ];
    for (const [what, one] of headers) {
      const form = await fields();
      await nothingCameOf(() => post(form, one), 403, what);
    }
    const text = await fields();
    await nothingCameOf(
      () =>
        ask(`/act/job/${ids.second}`, {
          method: 'POST',
          headers: { ...OWN(), 'content-type': 'text/plain' },
          body: String(new URLSearchParams(text)),
        }),
      400,
      'a form as text',
    );
    const query = String(new URLSearchParams(text));
    await nothingCameOf(() => ask(`/act/job/${ids.second}?${query}`), 200, 'a link');
    // The browser itself: a page of another origin that sends the whole form, with a stolen token.
    const view = await open();
    await view.page.route('http://evil.example/**', (route) =>
      route.fulfill({
        contentType: 'text/html',
        body: `<form method="post" action="${url}/act/job/${ids.second}">${Object.entries(text)
          .map(([name, value]) => `<input name="${name}" value="${value}">`)
          .join('')}<button>go</button></form>`,
      }),
    );
    await view.page.goto('http://evil.example/');
    const sent = (): Promise<Response> =>
      Promise.all([view.page.waitForResponse(/act\/job/), view.page.getByRole('button').click()]).then(
        ([answer]) => new Response(null, { status: answer.status() }),
      );
    await nothingCameOf(sent, [401, 403], 'a page of another origin');
    await view.close();
  });

  it('is refused with a used token, or one of another reader, act, job or view', async () => {
    const form = { ...(await readForm('note')), text: 'just once' };
    assert.equal((await post(form)).status, 303);
    await nothingCameOf(() => post(form), 303, 'again');
    await nothingCameOf(() => post({ ...form, text: 'again, with other words' }), 303, 'again, changed');
    const token = (await readForm('note')).token ?? '';
    const note = { act: 'note', text: 'x' };
    await nothingCameOf(() => post({ ...note, token }, OWN(), { user: 'carol' }), 403, 'of another reader');
    await nothingCameOf(() => post({ act: 'hold', text: 'x', token }), 403, 'of another act');
    await nothingCameOf(() => post({ ...note, token }, OWN(), { job: ids.first }), 403, 'of another job');
    const purpose = { user: 'alice', act: 'note', subject: ids.second } as const;
    const own = { inbox, answers: '', secret: join(its.site.root, 'view-mod_proxy_fcgi', 'state', 'acts.secret') };
    const other = { ...own, secret: join(its.site.root, 'acts.secret') };
    await nothingCameOf(() => post({ ...note, token: makeToken(other, purpose) }), 403, 'of another view');
    const old = makeToken(own, purpose, Date.now() - 9 * 3_600_000);
    await nothingCameOf(() => post({ ...note, token: old }), 403, 'old');
    for (const bad of ['', '.', token.slice(0, -1), `${token}0`, token.replace(/^\d/, '9'), 'x'.repeat(1000)])
      await nothingCameOf(() => post({ ...note, token: bad }), 403, bad);
    assert.equal(statSync(own.secret).mode & 0o777, 0o600);
  });

  it('is refused with an unknown act, an invalid job, or an invalid text', async () => {
    const form = { ...(await readForm('note')), text: 'x' };
    await nothingCameOf(() => post({ ...form, act: 'prune' }), 400, 'no act');
    await nothingCameOf(() => post({ ...form, text: '' }), 400, 'no text');
    await nothingCameOf(() => post({ ...form, text: 'a\nb' }), 400, 'two lines');
    await nothingCameOf(() => post({ ...form, text: 'x'.repeat(1001) }), 400, 'long');
    await nothingCameOf(() => post({ ...form, text: 'x'.repeat(20_000) }), [400, 413], 'longer than any form');
    const download = await readForm('download');
    await nothingCameOf(() => post({ ...download, stream: 'rdy' }), 400, 'no stream');
    for (const job of ['nothing', '..%2f..%2fetc', '-', `${ids.second}%0a`, '%00'])
      await nothingCameOf(() => post(form, OWN(), { job }), [400, 404], job);
    for (const path of [
      '/act/answer/../../x',
      '/act/answer/x',
      `/act/answer/${'0'.repeat(13)}-${'0'.repeat(16)}-${'0'.repeat(32)}`,
    ])
      assert.equal((await ask(path)).status, 404, path);
    for (const path of ['/act', '/act/', '/act/job/', '/act/job/nothing'])
      assert.equal((await ask(path)).status, 404, path);
  });

  it('is not needed to take a stream', async () => {
    for (const user of ['alice', 'bob']) assert.equal((await ask(`/stream/out/${ids.second}`, {}, user)).status, 403);
    const page = await (await ask(`/job/${ids.second}`, {}, 'bob')).text();
    assert.doesNotMatch(page, /\/stream\//);
  });
});

it('a request to act is recorded with the user and the group', () => {
  const lines = readFileSync(join(started.folder, 'access.jsonl'), 'utf8').trimEnd().split('\n');
  const posts = lines.map((line) => JSON.parse(line)).filter(({ act }) => act !== undefined);
  assert.ok(posts.length > 5);
  const { user, path, status, actor, act } = posts[0];
  assert.deepEqual([user, path, status, actor, act], ['alice', `/act/job/${ids.second}`, 303, true, 'verify']);
  const reader = lines
    .map((line) => JSON.parse(line))
    .find((line) => line.user === 'bob' && line.path === `/job/${ids.second}`);
  assert.equal(reader.actor, undefined);
});

for (const [width, colorScheme] of [
  [390, 'dark'],
  [1280, 'light'],
] as const) {
  it(`has a page legible at ${width} pixels, in ${colorScheme} colours`, async () => {
    const view = await open('alice', { viewport: { width, height: 900 }, colorScheme });
    for (const path of [`/act/job/${ids.second}`, `/act/job/${ids.got}`, `/job/${ids.second}`, '/act/job/nothing']) {
      await view.page.goto(url + path);
      const looked = await view.page.evaluate<{ width: number; faint: string[] }>(
        `({ width: document.documentElement.scrollWidth, faint: ${FIND_FAINT_TEXT}.faint })`,
      );
      assert.deepEqual(looked, { width, faint: [] }, path);
      const { violations } = await view.page.evaluate<axe.AxeResults>(`${axe.source}; axe.run()`);
      assert.deepEqual(
        violations.map(({ id }) => id),
        [],
        path,
      );
    }
    await view.close();
  });
}
