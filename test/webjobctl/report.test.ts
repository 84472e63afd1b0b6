// webjobctl report in a real browser, from files and from httpd: the locker is made by real CGI
// processes, with names and output that try to take a page over.
import assert from 'node:assert/strict';
import { appendFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { pathToFileURL } from 'node:url';
import type { Browser } from 'playwright-core';
import { startHttpd } from '../../scripts/httpd.ts';
import { addUser } from '../../scripts/site.ts';
import { FIND_BARRIERS, FIND_FAINT_TEXT, openView, startChromium } from '../support/chromium.ts';
import { type FilledLocker, fillLocker, makeLockerSite, makeRecord } from '../support/locker-site.ts';

const SCRIPT = '<script>window.pwned=1</script>';
const IMAGE = '"><img/src=x/onerror=window.pwned=2>';
/** All known ways for text to become more than text. */
const HOSTILE_TEXT = [
  ...[SCRIPT, IMAGE, "'><svg onload=window.pwned=3>", '</style></pre></main><h1>taken</h1>', '<!--', '</title>'],
  ...['<a href="javascript:window.pwned=4">click</a>', '<meta http-equiv=refresh content="0;url=http://127.0.0.1:9/">'],
  ...[
    '\x1b]0;title\x07\x1b[31mred\x1b[0m',
    '\u202egnp.exe\u202c \u2066x\u2069 \u061c',
    '&lt;b&gt; &#60;i&#62;',
    '{{2}} <%= 3 %>',
  ],
].join('\n');

const its = makeLockerSite();
const report = join(its.site.root, 'report');
let ids: FilledLocker;
let hostile = '';
let browser: Browser;

before(async () => {
  ids = await fillLocker(its);
  const facts = { Hostname: SCRIPT, CommandLine: latin(HOSTILE_TEXT), KidReason: IMAGE };
  const id = await its.run({ clientId: 'client1', fileName: 'host.sh', out: latin(HOSTILE_TEXT), record: facts });
  hostile = id;
  const env = makeRecord({ HashType: 'MD5', StdOutHash: '0'.repeat(32) });
  for (const jobId of [`../../${IMAGE}`, "'-alert(1)-'", `${'x'.repeat(250)}<b>`])
    await its.put({ clientId: 'client2', fileName: 'ps.sh', jobId, out: latin(HOSTILE_TEXT.slice(0, 80)), env });
  // What a careless old server could have written.
  const names = `client1 127.0.0.1 GET ${SCRIPT} ${IMAGE} 0 0 0 404 -- ${SCRIPT}`;
  appendFileSync(its.site.logFile, `2026-11-24 01:02:03 ${SCRIPT} ${names}\n`);
  const ran = await its.webjobctl('report', '--html', report, '--since', '2000-01-01');
  assert.deepEqual([ran.exitCode, ran.text], [0, ''], ran.stderr);
  browser = await startChromium();
});
after(async () => {
  await browser?.close();
  its.close();
});

/** Text as runBare() sends it: one character for each byte. */
function latin(text: string): string {
  return Buffer.from(text).toString('latin1');
}

const listPages = (): string[] =>
  readdirSync(report, { recursive: true })
    .map(String)
    .filter((name) => name.endsWith('.html'))
    .sort();
const readAll = (page: string): string => readFileSync(join(report, page), 'utf8');
/** What the page is about. */
const read = (page: string): string => readAll(page).slice(readAll(page).indexOf('<main'));
const address = (page: string): string => pathToFileURL(join(report, page)).href;
const findPage = (...texts: string[]): string => {
  const [page, more] = listPages().filter(
    (name) => name.startsWith('job/') && texts.every((t) => read(name).includes(t)),
  );
  assert.ok(page !== undefined && more === undefined, `not one page with ${texts}`);
  return page;
};

describe('a report', () => {
  it('has a page for every client, command and job, and links that lead to a page', () => {
    const pages = listPages();
    const count = (folder: string): number => pages.filter((name) => name.startsWith(folder)).length;
    assert.deepEqual([count('client/'), count('command/'), count('job/')], [3, 4, 14]);
    let links = 0;
    for (const page of pages) {
      for (const [, target = ''] of read(page).matchAll(/<a [^>]*href="([^"#]+)"/g)) {
        links++;
        assert.ok(pages.includes(normalize(join(dirname(page), target))), `${page} leads to ${target}`);
      }
    }
    assert.ok(links > 200);
  });

  it('gives no file a name that a client chose', () => {
    const names = readdirSync(report, { recursive: true }).map(String);
    for (const name of names)
      assert.match(name, /^(?:\.webjobctl|client|command|day|job|(?:(?:client|command|day|job)\/)?[\w-]{1,80}\.html)$/);
  });

  it('has the verdict, the output and the record on the page of a job', () => {
    const good = read(findPage(ids.first, 'kept\nbefore'));
    assert.match(good, /KidReason<\/th><td>The kid exited cleanly\./);
    assert.match(good, /verified<\/a>/);
    assert.equal(good.match(/>as received</g)?.length, 3);
    const wrong = listPages().filter((name) => read(name).includes('differs from the run record'));
    assert.equal(wrong.length, 3);
    for (const name of wrong) assert.match(read(name), /does not verify/);
    assert.match(read('index.html'), /<dt>verification failures<\/dt><dd class="bad">4<\/dd>/);
    assert.match(read('index.html'), /The custody record is intact, \d+ entries/);
    const broken = read(findPage(ids.incomplete, 'arrived'));
    assert.match(broken, /it has no \.rdy file/);
    const binary = read(findPage(ids.killed, '<pre class="dump"'));
    assert.match(binary, /signal 9/);
    assert.match(binary, /00000000 {2}1b 5d 30 3b 6f 77 6e 65/);
  });

  it('shows hostile output with every control character written out', () => {
    const page = read(findPage(hostile, 'gnp.exe'));
    assert.match(page, /<span class="shown">\\x07\\x1b<\/span>\[31mred/);
    assert.match(page, /<span class="shown">\\u202e<\/span>gnp\.exe<span class="shown">\\u202c<\/span>/);
    for (const name of listPages()) {
      assert.doesNotMatch(
        read(name),
        /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/,
        name,
      );
    }
  });
});

/** Runs in the page: everything that is checked on each. */
const LOOK = `({
  barriers: ${FIND_BARRIERS},
  contrast: ${FIND_FAINT_TEXT},
  width: document.documentElement.scrollWidth,
  ground: getComputedStyle(document.body).backgroundColor,
  pwned: typeof window.pwned,
  strangers: document.querySelectorAll('img, iframe, object, embed, base, main script, main style').length,
  scripts: document.scripts.length,
})`;

interface Looked {
  barriers: string[];
  contrast: { faint: string[]; seen: number };
  [other: string]: unknown;
}

for (const { colorScheme, width, ground } of [
  { colorScheme: 'light', width: 1280, ground: 'rgb(250, 250, 248)' },
  { colorScheme: 'dark', width: 390, ground: 'rgb(19, 23, 26)' },
] as const) {
  it(`opens from files, ${colorScheme}, ${width} wide, without a console error or a request`, async () => {
    const view = await openView(browser, { colorScheme, viewport: { width, height: 800 } });
    const expected = { barriers: [], ground, pwned: 'undefined', scripts: 1, strangers: 0, width };
    for (const page of listPages()) {
      await view.page.goto(address(page));
      const { contrast, ...looked } = await view.page.evaluate<Looked>(LOOK);
      assert.deepEqual(looked, expected, page);
      assert.deepEqual(contrast.faint, [], page);
      assert.ok(contrast.seen > 20, `${page}: looked at ${contrast.seen} texts`);
    }
    assert.deepEqual(view.complaints, []);
    assert.deepEqual(view.requests.sort(), listPages().map(address).sort());
    await view.close();
  });
}

/** How far a table must be scrolled, and the height of its highest row. */
const MEASURE = `(() => {
  const box = document.querySelector('#rows').closest('.scroll');
  const rows = [...document.querySelectorAll('#rows tbody tr')];
  return { hidden: box.scrollWidth - box.clientWidth, highest: Math.max(...rows.map((row) => row.offsetHeight)) };
})()`;

it('a report keeps a job on one line, with all its columns visible, however long the names', async () => {
  const names = `${'l'.repeat(64)} 127.0.0.1 GET ${'l'.repeat(64)} ${'c'.repeat(200)}`;
  appendFileSync(its.site.logFile, `2026-11-24 01:02:04 long_1 ${names} 0 0 0 404 -- Not Found\n`);
  const other = `${report}-long`;
  const ran = await its.webjobctl('report', '--html', other, '--since', '2000-01-01');
  assert.equal(ran.exitCode, 0, ran.stderr);
  const view = await openView(browser, { viewport: { width: 1280, height: 800 } });
  await view.page.goto(pathToFileURL(join(other, 'jobs.html')).href);
  assert.ok(await view.page.getByText('c'.repeat(200)).isVisible());
  const { hidden, highest } = await view.page.evaluate<{ hidden: number; highest: number }>(MEASURE);
  assert.equal(hidden, 0);
  assert.ok(highest < 50, `a row of ${highest} pixels`);
  await view.close();
});

it('a report is examined by checks that find faults', async () => {
  const view = await openView(browser);
  await view.page.setContent(
    `<a href="#x">x</a><h1>one</h1><h3 style="color:#949494">faint</h3><table><tr><td onclick="1">a</td></tr></table><img src="data:,">`,
  );
  const { barriers, contrast, strangers } = await view.page.evaluate<Looked>(LOOK);
  assert.deepEqual(contrast.faint, ['3.03 faint']);
  assert.equal(strangers, 1);
  for (const what of ['no language', '0 main', 'after h1 an h3', 'a table without a caption', 'an attribute onclick'])
    assert.ok(barriers.includes(what), `${what}: ${barriers}`);
  await view.close();
});

it('a report can be searched within a page', async () => {
  const view = await openView(browser);
  await view.page.goto(address('jobs.html'));
  const shown = 'document.querySelectorAll("#rows tbody tr:not([hidden])").length';
  const all = await view.page.evaluate(shown);
  assert.equal(all, 14);
  await view.page.getByRole('searchbox', { name: 'Search jobs' }).fill('CLIENT1  failed');
  assert.equal(await view.page.evaluate(shown), 1);
  assert.equal(await view.page.locator('output').textContent(), '1 of 14 rows');
  await view.page.getByRole('searchbox').fill('<script>');
  assert.equal(await view.page.evaluate(shown), 1);
  await view.page.getByRole('searchbox').press('Enter');
  assert.match(view.page.url(), /\/jobs\.html$/);
  assert.deepEqual(view.complaints, []);
  await view.close();
});

it('a report is complete without JavaScript', async () => {
  const view = await openView(browser, { javaScriptEnabled: false });
  await view.page.goto(address('jobs.html'));
  assert.equal(await view.page.locator('#rows tbody tr:visible').count(), 14);
  assert.equal(await view.page.locator('form:visible').count(), 0);
  await view.page.getByRole('link', { name: ids.first }).click();
  assert.match((await view.page.locator('pre').first().textContent()) ?? '', /^kept\nbefore\n$/);
  await view.page.goto(address('index.html'));
  await view.page.getByText('Runs every').first().waitFor();
  await view.page.locator('summary').first().click();
  assert.ok((await view.page.locator('details table').first().locator('tr:visible').count()) > 10);
  await view.close();
});

it('a report does not run a script that is inside it', async () => {
  const page = join(report, 'tampered.html');
  const bad = `<script>window.pwned=1</script><img src=x onerror="window.pwned=2"><img src="http://127.0.0.1:9/x">`;
  writeFileSync(page, readAll('index.html').replace('</main>', `${bad}</main>`));
  const view = await openView(browser);
  await view.page.goto(pathToFileURL(page).href);
  assert.equal(await view.page.evaluate('typeof window.pwned'), 'undefined');
  assert.ok(
    view.complaints.filter((line) => line.includes('Content Security Policy')).length >= 3,
    `${view.complaints}`,
  );
  await view.close();
});

describe('apache/webjob-report.conf', () => {
  it('serves it to a reader with a password, under the same policy, and nothing else', async () => {
    const { site } = its;
    addUser(site, 'reader', 'secret');
    const server = await startHttpd({
      site,
      mpm: 'event',
      modules: ['dir', 'headers', 'autoindex'],
      after: `Define WEBJOB_REPORT_DIRECTORY "${report}"
Define WEBJOB_REPORT_USER_FILE "${site.userFile}"
Include "${join(import.meta.dirname, '..', '..', 'apache', 'webjob-report.conf')}"`,
    });
    const url = `${server.url}/webjob-report/`;
    try {
      const authorization = `Basic ${btoa('reader:secret')}`;
      const ask = (path: string, method = 'GET', headers: Record<string, string> = { authorization }) =>
        fetch(`${url}${path}`, { method, headers, redirect: 'manual' });
      assert.equal((await ask('', 'GET', {})).status, 401);
      assert.equal((await ask('.webjobctl')).status, 403);
      assert.equal((await ask('job/')).status, 403);
      assert.equal((await ask('', 'POST')).status, 403);
      assert.equal((await ask('index.html/more')).status, 404);
      const { headers, status } = await ask('');
      assert.equal(status, 200);
      assert.equal(headers.get('content-type'), 'text/html; charset=utf-8');
      assert.equal(headers.get('x-content-type-options'), 'nosniff');
      const [, policy = ''] =
        /http-equiv="Content-Security-Policy" content="([^"]+)"/.exec(readAll('index.html')) ?? [];
      assert.match(policy, /^default-src 'none'; /);
      assert.equal(headers.get('content-security-policy'), `${policy}; frame-ancestors 'none'`);
      const view = await openView(browser, { httpCredentials: { username: 'reader', password: 'secret' } });
      await view.page.goto(url);
      await view.page.getByRole('link', { name: 'Jobs' }).click();
      await view.page.getByRole('link', { name: hostile }).click();
      assert.equal(await view.page.evaluate('getComputedStyle(document.body).backgroundColor'), 'rgb(250, 250, 248)');
      assert.deepEqual(view.complaints, []);
      assert.ok(
        view.requests.every((request) => request.startsWith(url)),
        `${view.requests}`,
      );
      await view.close();
    } finally {
      await server.stop();
    }
    assert.ok(existsSync(report));
  });
});
