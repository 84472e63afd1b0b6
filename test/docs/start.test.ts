// npm start in a fresh clone: what it shows, and that it leaves nothing behind however it ends.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

const script = join(import.meta.dirname, '..', '..', 'scripts', 'start.ts');
const built = join(import.meta.dirname, '..', '..', 'dist');
const temporary = mkdtempSync(join(tmpdir(), 'webjob-start-test-'));
// The web user must be able to enter the directory, as it can enter /tmp.
chmodSync(temporary, 0o755);
after(() => rmSync(temporary, { recursive: true, force: true }));

interface Run {
  child: ChildProcess;
  stdout: () => string;
  ended: Promise<number | null>;
}

/** A run whose temporary files are all in a directory of this test. */
function start(...args: string[]): Run {
  const child = spawn(process.execPath, [script, ...args], {
    env: { ...process.env, TMPDIR: temporary, NO_COLOR: '' },
  });
  const limit = setTimeout(() => child.kill('SIGKILL'), 180_000);
  let stdout = '';
  child.stdout.on('data', (chunk) => {
    stdout += chunk;
  });
  child.stderr.resume();
  const ended = new Promise<number | null>((resolve) => {
    child.on('close', (code) => {
      clearTimeout(limit);
      resolve(code);
    });
  });
  return { child, stdout: () => stdout, ended };
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 90_000; Date.now() < deadline; await sleep(20)) if (isSo()) return;
  assert.fail(`never: ${what}`);
}

/** Processes whose command line contains the temporary directory. */
function processesLeft(): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => readCommandLine(pid))
    .filter((line) => line.includes(temporary));
}

function readCommandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}

async function checkNothingLeft(): Promise<void> {
  assert.deepEqual(readdirSync(temporary), []);
  await until('every process has ended', () => processesLeft().length === 0);
}

function checkTranscript(text: string): void {
  const pattern = new RegExp(
    [
      String.raw`^\$ webjob --execute --file \S+/webjob\.conf host\.sh`,
      '',
      String.raw`nph-webjob\.log`,
      String.raw`\S+ \S+ (\S+) client1 127\.0\.0\.1 GET client1 host\.sh 0 19 \d+ 200 -- Success`,
      String.raw`\S+ \S+ \1 client1 127\.0\.0\.1 PUT client1 host\.sh \d+ 0 \d+ 200 -- Success`,
      '',
      'incoming',
      ...['env', 'err', 'out', 'rdy'].map((extension) => String.raw` +\d+  client1_\d{14}_\d+_host\.sh\.${extension}`),
    ].join('\n'),
  );
  assert.match(text, pattern);
  assert.match(text, /\nVersion=webjob [^\n]+\nHostname=/);
  assert.match(text, /\nJid=server_1_\d{10}_\d+\n/);
  assert.ok(text.includes(`.out\n${hostname()}\n`));
}

interface Program {
  path: string;
  fd: number;
  text: string;
}

function openPrograms(): Program[] {
  return [
    'nph-webjob.cgi',
    'nph-webjob-resident.cjs',
    'webjob',
    'webjobctl',
    'pad-make-script',
    'webjob-sign',
    'webjob-view.cgi',
  ].map((name) => {
    const path = join(built, name);
    return { path, fd: openSync(path, 'r'), text: readFileSync(path, 'utf8') };
  });
}

/** Built again as new files: a Node that has begun to read the old one reads all of it. */
function checkReplaced(programs: readonly Program[]): void {
  for (const { path, fd, text } of programs) {
    assert.notEqual(statSync(path).ino, fstatSync(fd).ino, `${path} was written over`);
    assert.equal(readFileSync(fd, 'utf8'), text);
    assert.equal(statSync(path).mode & 0o777, path.endsWith('.cjs') ? 0o644 : 0o755);
    closeSync(fd);
  }
}

/** What changed between two runs is a link away from the first page, and the reader may act. */
async function checkView(printed: string): Promise<void> {
  const [, url = '', user, password] = /browser +(\S+)\/ +\((\w+), (\w+)\)/.exec(printed) ?? [];
  const headers = { Authorization: `Basic ${btoa(`${user}:${password}`)}` };
  const deadline = Date.now() + 60_000;
  const read = async (path: string): Promise<string> => {
    let answer = await fetch(url + path, { headers });
    // The first page waits for the index.
    for (; answer.status === 503 && Date.now() < deadline; answer = await fetch(url + path, { headers })) {
      await answer.text();
      await sleep(500);
    }
    const text = await answer.text();
    assert.equal(answer.status, 200, `${path}: ${text}`);
    return text;
  };
  let href: string | undefined;
  for (; href === undefined && Date.now() < deadline; await sleep(100))
    href = /href="\/webjob-view(\/diff\?[^"]+)">disk\.sh on client1</.exec(await read('/'))?.[1];
  assert.ok(href, 'the overview tells of no change');
  assert.match(await read(href.replaceAll('&amp;', '&')), /class="added">\+process \d+ started /);
  assert.match(await read('/assignment/1'), /href="\/webjob-view\/act\/assignment\/1"/);
  assert.match(await read('/act/assignment/1'), /<button type="submit">Pause<\/button>/);
}

describe('npm start', () => {
  for (const args of [[], ['--embedded']]) {
    it(`${['shows the whole run', ...args].join(' ')}, and leaves nothing`, async () => {
      const before = openPrograms();
      const { ended, stdout } = start(...args);
      assert.equal(await ended, 0);
      checkTranscript(stdout());
      await checkNothingLeft();
      checkReplaced(before);
    });
  }

  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    it(`serves what it prints until ${signal} with --keep`, async () => {
      const { child, ended, stdout } = start('--keep');
      await until('the explanation', () => /settings {2}\S+\n/.test(stdout()));
      const url = /curl -u client1:foo -H 'Content-Length: 0' '(\S+)'/.exec(stdout())?.[1] ?? '';
      // fetch sends no Content-Length with a GET, which the protocol requires.
      const answer = await fetch(url, { headers: { Authorization: `Basic ${btoa('client1:foo')}` } });
      assert.equal(answer.status, 454);
      await checkView(stdout());
      child.kill(signal);
      assert.equal(await ended, code);
      await checkNothingLeft();
    });
  }

  it('ends and leaves nothing after a signal during the run', async () => {
    const { child, ended } = start();
    await until('a site', () => readdirSync(temporary).length > 0);
    child.kill('SIGTERM');
    assert.equal(await ended, 143);
    await checkNothingLeft();
  });

  it('explains itself with --help, and refuses a wrong option', async () => {
    const help = start('--help');
    assert.equal(await help.ended, 0);
    assert.match(help.stdout(), /^Usage: npm start/);
    assert.equal(await start('--kep').ended, 1);
  });
});
