// The view in a real browser, under a real httpd that includes the shipped file: every page, what a
// user does there, and a job that tries to take the page over. All tests share one httpd and one
// browser.
import assert from 'node:assert/strict';
import { appendFileSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import axe from 'axe-core';
import type { Browser } from 'playwright-core';
import { findFreePorts } from '../../scripts/free-ports.ts';
import { type HttpdServer, startHttpd } from '../../scripts/httpd.ts';
import { addCommand } from '../../scripts/site.ts';
import { MODULES_OF_VIEW, type View as Started, startView, type ViewWay } from '../../scripts/view.ts';
import { FIND_FAINT_TEXT, openView, startChromium, type View } from '../support/chromium.ts';
import {
  type FilledLocker,
  fillLocker,
  type LockerSite,
  makeLockerSite,
  makeRecord,
  nextSecond,
} from '../support/locker-site.ts';
import { waitFor } from '../support/wait.ts';

const SCRIPT = '<script>window.pwned=1</script>';
const IMAGE = '"><img/src=x/onerror=window.pwned=2>';
const HOSTILE = [
  ...[SCRIPT, IMAGE, "'><svg onload=window.pwned=3>", '</pre></main><h1>taken</h1>', '<!--', '</title>'],
  ...['<a href="javascript:window.pwned=4">click</a>', '<meta http-equiv=refresh content="0;url=http://127.0.0.1:9/">'],
  ...['\x1b]0;title\x07\x1b[31mred\x1b[0m', '\u202egnp.exe\u202c \u2066x\u2069', '&lt;b&gt;'],
].join('\n');
const READERS = { alice: 'secret' };
/** As long as the name of an upload allows. */
const LONG_NAME = 'n'.repeat(205) + '.sh';
/** One line, far longer than what a page shows. */
const LONG_BYTES = 40_000_000;

let its: LockerSite;
let ids: FilledLocker;
let hostile = '';
let long = '';
let browser: Browser;
let server: HttpdServer;
const views = new Map<ViewWay, Started>();
const urls = new Map<ViewWay, string>();
let url = '';

function latin(text: string): string {
  return Buffer.from(text).toString('latin1');
}

before(async () => {
  its = makeLockerSite();
  ids = await fillLocker(its);
  const facts = { Hostname: SCRIPT, CommandLine: latin(HOSTILE), KidReason: IMAGE };
  hostile = await its.run({ clientId: 'client1', fileName: 'host.sh', out: latin(HOSTILE), record: facts });
  await its.put({ clientId: 'client2', fileName: 'ps.sh', jobId: `a/../${IMAGE}`, out: 'x', env: makeRecord({}) });
  addCommand(its.site, 'client1', LONG_NAME, '#!/bin/sh\n');
  long = await its.run({ clientId: 'client1', fileName: LONG_NAME, out: `${'l'.repeat(LONG_BYTES)}needle` });
  const names = `client1 127.0.0.1 GET ${SCRIPT} ${IMAGE} 0 0 0 404 -- ${SCRIPT}`;
  appendFileSync(its.site.logFile, `2026-11-24 01:02:03 ${SCRIPT} ${names}\n`);
  await serve();
  // On a busy machine the first index takes longer than a request waits: until then a page says so.
  for (const base of urls.values())
    await waitFor('the index', async () => {
      const { status } = await ask('/', {}, base);
      assert.ok([200, 503].includes(status), `${status} ${readFileSync(server.errorLog, 'utf8').slice(-500)}`);
      return status === 200;
    });
  browser = await startChromium();
});
after(async () => {
  await browser?.close();
  await server?.stop();
  for (const view of views.values()) await view.stop();
  its?.close();
});

/** All three configurations in one httpd, each in a virtual host of its own. */
async function serve(): Promise<void> {
  const { site } = its;
  for (const way of ['mod_proxy_fcgi', 'cgi', 'mod_fcgid'] as const)
    views.set(way, await startView({ site, way, readers: READERS, isRecorded: way === 'mod_proxy_fcgi' }));
  const [port = 0] = await findFreePorts(1);
  const host = (at: number, way: ViewWay): string =>
    `<VirtualHost 127.0.0.1:${at}>\n${views.get(way)?.lines}</VirtualHost>\n`;
  const run = join(site.root, 'httpd-event');
  server = await startHttpd({
    site,
    mpm: 'event',
    modules: [...new Set(Object.values(MODULES_OF_VIEW).flat())],
    before: `FcgidIPCDir "${run}/fcgid"\nFcgidProcessTableFile "${run}/fcgid_shm"`,
    after: views.get('mod_proxy_fcgi')?.lines ?? '',
    second: (second) => `${host(second, 'cgi')}Listen 127.0.0.1:${port}\n${host(port, 'mod_fcgid')}`,
  });
  url = `${server.url}/webjob-view`;
  urls.set('mod_proxy_fcgi', url);
  urls.set('cgi', `http://127.0.0.1:${server.secondPort}/webjob-view`);
  urls.set('mod_fcgid', `http://127.0.0.1:${port}/webjob-view`);
}

const AUTHORIZATION = `Basic ${btoa('alice:secret')}`;
const ask = (path: string, init: RequestInit = {}, base = url): Promise<Response> =>
  fetch(`${base}${path}`, { redirect: 'manual', headers: { authorization: AUTHORIZATION }, ...init });
async function read(path: string): Promise<string> {
  const answer = await ask(path);
  assert.equal(answer.status, 200, `${path}: ${await answer.clone().text()}`);
  return await answer.text();
}
const readJson = async <Value>(path: string): Promise<Value> => JSON.parse(await read(path)) as Value;

interface Jobs {
  jobs: { jobId: string | null; client: string; state: string }[];
  next: string | null;
}

const open = (options = {}): Promise<View> =>
  openView(browser, { httpCredentials: { username: 'alice', password: 'secret' }, ...options });

const PAGES = (): string[] => [
  ...['/', '/jobs', '/jobs?state=failed&sort=client', '/jobs?client=nobody', '/clients', '/commands', '/search'],
  ...['/search?q=kept', `/job/${ids.second}`, `/job/${ids.killed}`, `/job/${ids.incomplete}`, `/job/${hostile}`],
  ...[`/job/${hostile}?s=env`, `/job/${long}?s=out&pos=last`, '/client/client1', '/command/host.sh'],
  ...[`/diff?from=previous&to=${ids.second}`, '/diff'],
];

/** Runs in the page. */
const LOOK = `({
  contrast: ${FIND_FAINT_TEXT},
  width: document.documentElement.scrollWidth,
  pwned: typeof window.pwned,
  strangers: document.querySelectorAll('img, iframe, object, embed, base, main script, main style').length,
})`;

interface Looked {
  contrast: { faint: string[]; seen: number };
  width: number;
  pwned: string;
  strangers: number;
}

async function findViolations({ page }: View): Promise<string[]> {
  const options = "{ resultTypes: ['violations'], rules: { 'color-contrast': { enabled: false } } }";
  const { violations, passes } = await page.evaluate<axe.AxeResults>(`${axe.source}; axe.run(${options})`);
  assert.ok(passes.length > 10, 'axe looked at nothing');
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 200)).join(' ')}`);
}

for (const { colorScheme, width } of [
  { colorScheme: 'light', width: 1280 },
  { colorScheme: 'dark', width: 390 },
] as const) {
  it(`has pages without a barrier, a console error or a foreign request, ${colorScheme}, ${width} wide`, async () => {
    const view = await open({ colorScheme, viewport: { width, height: 900 } });
    for (const path of PAGES()) {
      await view.page.goto(url + path);
      const { contrast, ...looked } = await view.page.evaluate<Looked>(LOOK);
      assert.deepEqual(looked, { width, pwned: 'undefined', strangers: 0 }, path);
      assert.deepEqual(contrast.faint, [], path);
      assert.ok(contrast.seen > 10, `${path}: looked at ${contrast.seen} texts`);
      // axe's other findings depend neither on colours, which are measured above, nor on the width.
      if (colorScheme === 'light') assert.deepEqual(await findViolations(view), [], path);
    }
    assert.deepEqual(view.complaints, []);
    assert.deepEqual(
      view.requests.filter((request) => !request.startsWith(`${server.url}/`)),
      [],
    );
    await view.close();
  });
}

it('the view is checked by an axe that finds faults', async () => {
  const view = await open();
  await view.page.goto(`${url}/search`);
  await view.page.evaluate('document.documentElement.removeAttribute("lang")');
  assert.match(`${await findViolations(view)}`, /^html-has-lang/);
  await view.close();
});

describe('a reader', () => {
  it('gets from the overview to what changed in a run in four clicks, and back', async () => {
    const view = await open();
    const { page } = view;
    await page.goto(`${url}/`);
    await page.getByRole('link', { name: 'Jobs', exact: true }).click();
    await page.getByRole('link', { name: ids.second }).click();
    assert.match((await page.locator('pre').first().textContent()) ?? '', /^kept\nafter\n$/);
    await page.getByRole('link', { name: 'What changed since the previous run' }).click();
    const diff = await page.locator('pre.diff').textContent();
    assert.match(diff ?? '', /\+kept\n\+after\n/);
    await page.goBack();
    await page.goBack();
    assert.equal(page.url(), `${url}/jobs`);
    await page.reload();
    assert.ok((await page.locator('#rows tbody tr').count()) > 5);
    assert.deepEqual(view.complaints, []);
    await view.close();
  });

  it('filters with a form whose URL is the filter', async () => {
    const view = await open();
    const { page } = view;
    await page.goto(`${url}/jobs`);
    await page.getByLabel('Client or group').fill('client2');
    await page.getByLabel('State').selectOption('failed');
    await page.getByRole('button', { name: 'Show' }).click();
    assert.match(page.url(), /[?&]client=client2&.*state=failed/);
    assert.equal(await page.locator('#rows tbody tr').count(), 1);
    const second = await open();
    await second.page.goto(page.url());
    assert.equal(await second.page.getByLabel('Client or group').inputValue(), 'client2');
    await second.close();
    await view.close();
  });

  it('moves through a list with j and k, opens with Enter, and searches with /', async () => {
    const view = await open();
    const { page } = view;
    await page.goto(`${url}/jobs?state=done`);
    const rows = page.locator('#rows tbody tr');
    await page.keyboard.press('j');
    await page.keyboard.press('j');
    await page.keyboard.press('k');
    assert.match((await rows.first().getAttribute('class')) ?? '', /chosen/);
    const id = await rows.first().locator('.job a').textContent();
    await page.keyboard.press('Enter');
    await page.waitForURL(`${url}/job/${id}`);
    await page.keyboard.press('/');
    await page.keyboard.type('after');
    await page.keyboard.press('Enter');
    await page.waitForURL(/find=after/);
    await view.close();
  });

  it('sees times in the local time zone, and UTC on hover', async () => {
    const view = await open({ timezoneId: 'Asia/Kolkata' });
    await view.page.goto(`${url}/job/${ids.first}`);
    const time = view.page.locator('.lead time').first();
    const [at, title, text] = [
      await time.getAttribute('datetime'),
      await time.getAttribute('title'),
      await time.textContent(),
    ];
    const india = new Date(Date.parse(at ?? '') + 5.5 * 3_600_000).toISOString();
    assert.equal(text, india.slice(0, 19).replace('T', ' '));
    assert.equal(title, `${at?.slice(0, 19).replace('T', ' ')} UTC`);
    await view.close();
  });

  it('needs no JavaScript to read', async () => {
    const view = await open({ javaScriptEnabled: false });
    await view.page.goto(`${url}/`);
    await view.page.getByRole('link', { name: 'Clients', exact: true }).click();
    await view.page.getByRole('link', { name: 'client1', exact: true }).click();
    await view.page.getByRole('link', { name: 'changed' }).first().click();
    assert.equal(await view.page.locator('pre.diff').count(), 1);
    await view.close();
  });
});

describe('a list of jobs', () => {
  it('has the same jobs as webjobctl, and every job once', async () => {
    const { jobs, next } = await readJson<Jobs>('/jobs.json');
    const listed = await its.readJson<{ jobId: string | null; state: string }>('jobs', '--since', '2000-01-01');
    const key = ({ jobId, state }: { jobId: string | null; state: string }): string => `${jobId} ${state}`;
    assert.deepEqual(jobs.map(key).sort(), listed.map(key).sort());
    assert.equal(next, null);
  });

  it('finds jobs by text of the output, by exit status and by name', async () => {
    // On a busy machine a page ends before everything was read, and links to the rest.
    const find = async (query: string): Promise<(string | null)[]> => {
      const found: (string | null)[] = [];
      for (let path: string | null = `/jobs.json?${query}`, looked = 0; path !== null && looked < 40; looked++) {
        const { jobs, next }: Jobs = await readJson<Jobs>(path);
        found.push(...jobs.map(({ jobId }) => jobId));
        path = next?.replace('/webjob-view', '') ?? null;
      }
      return found;
    };
    assert.deepEqual(await find('text=kept'), [ids.second, ids.first]);
    assert.deepEqual(await find('text=kept&sort=oldest'), [ids.first, ids.second]);
    assert.deepEqual(await find('exit=3'), [ids.failed]);
    assert.deepEqual(await find('state=failed&client=*2'), [ids.killed]);
    assert.deepEqual(await find('text=nowhere_at_all'), []);
  });

  it('is available as CSV that no spreadsheet runs, and failures as a feed', async () => {
    const csv = await read('/jobs.csv');
    assert.match(csv, /^job_id,client,command,state,at,/);
    assert.doesNotMatch(csv, /(?:^|,)"?[=+@]/m);
    const feed = await read('/failures.atom');
    const view = await open();
    await view.page.goto(`${url}/jobs`);
    const parsed = await view.page.evaluate<{ entries: number; broken: number; link: string }>(`(() => {
      const xml = new DOMParser().parseFromString(${JSON.stringify(feed)}, 'application/xml');
      return {
        entries: xml.getElementsByTagName('entry').length,
        broken: xml.getElementsByTagName('parsererror').length,
        link: xml.getElementsByTagName('entry')[0].getElementsByTagName('link')[0].getAttribute('href'),
      };
    })()`);
    assert.ok(parsed.entries >= 3, feed);
    assert.equal(parsed.broken, 0);
    assert.ok(parsed.link.startsWith(`${url}/job/`), parsed.link);
    await view.close();
  });

  it('reports filters that it does not understand', async () => {
    for (const query of ['exit=x', 'state=odd', 'since=yesterday', 'sort=size', 'after=x'])
      assert.equal((await ask(`/jobs?${query}`)).status, 400, query);
  });
});

describe('the page of a job', () => {
  it('shows its verdict, its record and its streams', async () => {
    const page = await read(`/job/${ids.second}`);
    assert.match(page, /class="state good" href="#verification">verified</);
    assert.match(page, /KidReason<\/th><td>The kid exited cleanly\./);
    const json = await readJson<Record<string, unknown>>(`/job/${ids.second}.json`);
    const [shown] = await its.readJson<Record<string, unknown>>('show', ids.second);
    const { verification, page: _, ...rest } = shown ?? {};
    assert.deepEqual(json, { ...rest, verification: (verification as { words: string }).words });
  });

  it('shows any part of a stream that is one long line, and finds text in it', async () => {
    const page = await read(`/job/${long}`);
    assert.ok(page.length < 100_000, `a page of ${page.length} bytes`);
    assert.match(await read(`/job/${long}?s=out&pos=last`), /lllneedle</);
    assert.match(await read(`/job/${long}?s=out&pos=20000000`), /Bytes 20,000,000 to 20,016,384 of 40,000,006\./);
    // On a busy machine a page ends before the text is found, and links to the rest.
    let found = await read(`/job/${long}?s=out&find=needle`);
    for (let looked = 0; found.includes('Not found so far') && looked < 40; looked++) {
      const [, href = ''] = /href="\/webjob-view([^"#]*)[^"]*">Find next</.exec(found) ?? [];
      found = await read(href.replaceAll('&amp;', '&'));
    }
    assert.match(found, /<mark>needle<\/mark>/);
    assert.match(await read(`/job/${long}?s=out&find=nothere`), /Not found after this position|Not found so far/);
    assert.match(await read(`/job/${ids.killed}?s=out&as=hex`), /00000000 {2}1b 5d 30 3b/);
  });

  it('offers a stream as a download byte for byte, and prevents its execution', async () => {
    const answer = await ask(`/stream/out/${hostile}`);
    const header = (name: string): string => answer.headers.get(name) ?? '';
    assert.match(header('content-disposition'), /^attachment; filename="[\w-]+\.out\.bin"$/);
    assert.equal(header('x-content-type-options'), 'nosniff');
    assert.match(header('content-security-policy'), /^sandbox; default-src 'none'/);
    assert.equal(header('content-type'), 'application/octet-stream');
    assert.equal(await answer.text(), HOSTILE);
  });

  it('escapes what a browser or a reader would interpret', async () => {
    const page = await read(`/job/${hostile}`);
    assert.match(page, /<span class="shown">\\x07\\x1b<\/span>\[31mred/);
    assert.match(page, /<span class="shown">\\u202e<\/span>gnp\.exe/);
    assert.doesNotMatch(page, /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/);
    for (const path of ['/jobs', '/search?q=taken', '/command/host.sh', '/', `/diff?from=${ids.second}&to=${hostile}`])
      assert.doesNotMatch(await read(path), /<script>window|<img|<h1>taken/, path);
  });

  it('is reachable without an id, or with an id that is not a path', async () => {
    const view = await open();
    await view.page.goto(`${url}/jobs`);
    const links = await view.page.locator('#rows .job a').all();
    const odd: string[] = [];
    for (const link of links) {
      const href = (await link.getAttribute('href')) ?? '';
      if (href.includes('/job/-?')) odd.push(href);
    }
    assert.ok(odd.length >= 2, `${odd}`);
    for (const href of odd) {
      await view.page.goto(server.url + href);
      assert.equal(await view.page.locator('h2#verification').count(), 1, href);
    }
    await view.close();
  });
});

describe('the page of a command', () => {
  it('shows clients with the same output together', async () => {
    addCommand(its.site, 'client2', 'same.sh', '#!/bin/sh\n');
    for (const [clientId, out] of [
      ['client2', 'alike\n'],
      ['client1', 'alike\n'],
    ] as const) {
      if (clientId === 'client1') addCommand(its.site, 'client1', 'same.sh', '#!/bin/sh\n');
      await its.run({ clientId, fileName: 'same.sh', out });
    }
    await nextSecond();
    await nextSecond();
    assert.match(await read('/command/same.sh'), /Command: 2 alike\./);
    await its.run({ clientId: 'client1', fileName: 'same.sh', out: 'other\n' });
    await nextSecond();
    await nextSecond();
    const page = await read('/command/same.sh');
    assert.match(page, /Command: all 2 differ\./);
    const [, href = ''] = /href="([^"]*\/diff[^"]*)">how</.exec(page) ?? [];
    const { differs, diff } = await readJson<{ differs: boolean; diff: string }>(
      href.replaceAll('&amp;', '&').replace(/^.*\/diff/, '/diff.json'),
    );
    assert.deepEqual([differs, diff.includes('other') && diff.includes('alike')], [true, true]);
    const client = await readJson<{ newest: { command: string; changed: boolean | null }[] }>('/client/client1.json');
    assert.equal(client.newest.find(({ command }) => command === 'same.sh')?.changed, true);
  });
});

describe('httpd', () => {
  it('accepts only its users, with GET only', async () => {
    assert.equal((await ask('/', { headers: {} })).status, 401);
    assert.equal((await ask('/jobs', { method: 'POST' })).status, 403);
    assert.equal((await ask('')).headers.get('location'), '/webjob-view/');
    for (const path of ['/nothing', '/job/nothing', '/client/nobody', '/stream/rdy/x', '/stream/out/nothing'])
      assert.equal((await ask(path)).status, 404, path);
    for (const path of ['/job/..%2f..%2fetc%2fpasswd', '/style-x.css'])
      assert.ok([400, 404].includes((await ask(path)).status), path);
    const { headers } = await ask('/');
    assert.match(
      headers.get('content-security-policy') ?? '',
      /^default-src 'none'; style-src 'self'; script-src 'self'; img-src data:; form-action 'self'/,
    );
    assert.match(headers.get('cache-control') ?? '', /no-store/);
  });

  it('serves the same in each deployment', async () => {
    const [expected, ...others] = await Promise.all(
      [...urls.values()].map(async (base) => (await ask(`/job/${ids.first}`, {}, base)).text()),
    );
    assert.match(expected ?? '', /verified/);
    for (const other of others)
      assert.ok(other === expected, `${other.slice(0, 100)} ${readFileSync(server.errorLog, 'utf8').slice(-1000)}`);
  });

  it('has a worker that cannot write to the site', () => {
    const { pid } = views.get('mod_proxy_fcgi') ?? {};
    if (process.getuid?.() !== 0) return;
    const [, uid] = /^Uid:\t(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
    const { uid: owner, mode } = statSync(its.site.incoming);
    assert.ok(
      Number(uid) !== 0 && Number(uid) !== owner && (mode & 0o002) === 0,
      `${uid} ${owner} ${mode.toString(8)}`,
    );
  });

  it('records which user viewed which page', async () => {
    await read(`/job/${ids.first}?s=out`);
    const lines = readFileSync(join(views.get('mod_proxy_fcgi')?.folder ?? '', 'access.jsonl'), 'utf8')
      .trimEnd()
      .split('\n');
    const { time, ...last } = JSON.parse(lines.at(-1) ?? '') as Record<string, unknown>;
    assert.ok(Math.abs(Date.parse(String(time)) - Date.now()) < 60_000);
    assert.deepEqual(last, {
      user: 'alice',
      address: '127.0.0.1',
      path: `/job/${ids.first}`,
      query: 's=out',
      status: 200,
    });
  });
});
