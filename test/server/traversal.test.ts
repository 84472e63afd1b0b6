// Hostile requests against a server with the weakest settings possible: each is refused or served
// from the right place, nothing outside of the locker changes, no secret is revealed, and each
// leaves exactly one line in the log.
import assert from 'node:assert/strict';
import {
  chmodSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, it } from 'node:test';
import { formatHead, requestFromEnv } from 'node-cgi-compat';
import { Chain, custodyPath, parseReady } from 'webjob-locker';
import { isSuccess, parseLogLine, REASONS } from 'webjob-protocol';
import { handleRequest } from '../../cgi/handle.ts';
import { addCommand, makeSite, type Site } from '../../scripts/site.ts';
import { collect, spawnBare } from '../support/bare.ts';
import { BODY, FORMATS, type HostileRequest, LINK_OUT, makeHostileRequests } from '../support/hostile.ts';
import { findWebUser, HOST_SH, readFiles } from '../support/tree.ts';

const SECRET = 'a secret that must never come out';

/** A site deep in a directory, with a secret at every level above it. */
interface World {
  site: Site;
  outer: string;
  secretPath: string;
  requests: HostileRequest[];
}

/** Deeper than any request climbs. */
const DEPTH = 8;

const outers: string[] = [];
after(() => {
  for (const outer of outers) rmSync(outer, { recursive: true });
});

function makeWorld(): World {
  const outer = mkdtempSync(join(tmpdir(), 'webjob-traversal-'));
  outers.push(outer);
  const inner = join(outer, ...Array.from({ length: DEPTH }, (_, step) => `step${step}`));
  mkdirSync(inner, { recursive: true });
  chmodSync(outer, 0o755);
  const site = makeSiteIn(inner);
  for (let folder = site.incoming; folder !== dirname(outer); folder = dirname(folder)) plantSecret(folder);
  plantSecret(site.profiles);
  addCommand(site, 'client2', 'secret.sh', SECRET);
  symlinkSync('../client2/../../secret.sh', join(site.profiles, 'client1', LINK_OUT));
  for (const [index, format] of FORMATS.entries()) {
    const lines = [
      `BaseDirectory=${site.base}`,
      'RequireUser=N',
      'OverwriteExistingFiles=Y',
      `PutNameFormat=${format}`,
    ];
    writeFileSync(settingsFile(site, index), `${lines.join('\n')}\n`, { mode: 0o644 });
  }
  const secretPath = join(inner, 'secret.sh');
  return { site, outer, secretPath, requests: makeHostileRequests(secretPath) };
}

function makeSiteIn(folder: string): Site {
  const { TMPDIR } = process.env;
  process.env.TMPDIR = folder;
  try {
    return makeSite();
  } finally {
    if (TMPDIR === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = TMPDIR;
  }
}

function plantSecret(folder: string): void {
  writeFileSync(join(folder, 'secret.sh'), SECRET, { mode: 0o644 });
}

function custodyFile(site: Site): string {
  return custodyPath(dirname(site.logFile), 'server_1');
}

function settingsFile(site: Site, format: number): string {
  return join(site.root, 'etc', `format${format}.cfg`);
}

/** Everything but the log, the custody record and the uploads. */
function readSurroundings({ outer, site }: World): Map<string, string> {
  const uploads = `${site.incoming.slice(outer.length + 1)}/`;
  const written = [site.logFile, custodyFile(site)].map((path) => path.slice(outer.length + 1));
  const files = [...readFiles(outer)].filter(([path]) => !path.startsWith(uploads) && !written.includes(path));
  return new Map([...files, ['incoming/secret.sh', readFileSync(join(site.incoming, 'secret.sh'), 'utf8')]]);
}

/** Status and content of an answer, and its bytes. */
interface Answer {
  status: number;
  content: string;
  bytes: string;
}

/** One request through the server's own function, in this process. */
function askHere({ site }: World, { env, format }: HostileRequest): Answer {
  const request = requestFromEnv({ ...env, WEBJOB_PROPERTIES_FILE: settingsFile(site, format) });
  const left = Buffer.from(request.method === 'PUT' ? BODY : '');
  let at = 0;
  const response = handleRequest(request, {
    read(buffer) {
      const count = left.copy(buffer, 0, at);
      at += count;
      return count;
    },
  });
  const content = readContent(response.content);
  assert.equal(content.length, response.contentLength);
  assert.equal(response.reason, REASONS[response.status as keyof typeof REASONS]);
  return { status: response.status, content, bytes: `${formatHead(response, 'nph')}${content}` };
}

function readContent(content: Uint8Array | { fd: number } | undefined): string {
  if (content === undefined || content instanceof Uint8Array) return Buffer.from(content ?? []).toString('latin1');
  try {
    return readFileSync(content.fd, 'latin1');
  } finally {
    closeSync(content.fd);
  }
}

/** One request through the built script, in a process of its own. */
async function askProcess({ site }: World, { env, format }: HostileRequest): Promise<Answer> {
  // A process gets bytes, one character each.
  const bytesOf = (text: string | undefined): string | undefined => text && Buffer.from(text).toString('latin1');
  const plain = { method: 'GET', target: '/', protocol: 'HTTP/1.1', headers: [], body: Buffer.alloc(0) };
  const child = spawnBare(plain, {
    settingsFile: settingsFile(site, format),
    user: findWebUser(),
    environment: Object.entries(env).map(([name, value]) => [name, bytesOf(value)]),
  });
  child.stdin?.end(env.REQUEST_METHOD === 'PUT' ? BODY : '');
  const { stdout, stderr, exitCode } = await collect(child, 20);
  assert.deepEqual([stderr, exitCode], ['', 0]);
  const bytes = stdout.toString('latin1');
  const [, status = '', content = ''] = /^HTTP\/1\.1 (\d{3}) [^\r\n]+\r\n(?:[^\r\n]+\r\n)*\r\n(.*)$/s.exec(bytes) ?? [];
  return { status: Number(status), content, bytes };
}

/** Checks one answer and the new lines of the log. */
function checkAnswer(answer: Answer, newLines: string, request: HostileRequest): void {
  const { status, content, bytes } = answer;
  assert.ok(status in REASONS, `${status}`);
  assert.ok(!bytes.includes(SECRET), 'the secret came out');
  assert.ok(!/^X-Forged/im.test(bytes), 'a header was forged');
  const isServed = status === 200 && request.env.REQUEST_METHOD === 'GET';
  assert.equal(content, isServed ? HOST_SH : '');
  assert.match(newLines, /^[\x20-\x7e]+\n$/, 'one line');
  const line = parseLogLine(newLines.slice(0, -1));
  assert.equal(line.status, status);
  assert.notEqual(line.jobId, 'forged');
  assert.doesNotMatch(line.message, /unexpected/, 'a bug');
  if (isSuccess(status)) assert.match(line.clientId ?? '', /^(?:[\w-]{1,64}|%2d)$/);
}

/** Removes the contents of the log. */
function takeLog(site: Site): string {
  const text = readFileSync(site.logFile, 'latin1');
  truncateSync(site.logFile);
  return text;
}

/** The uploads are complete and have harmless names. Returns their number. */
function checkLocker(site: Site): number {
  const groups = new Map<string, string[]>();
  for (const [path, content] of readFiles(site.incoming)) {
    if (path === 'secret.sh') continue;
    assert.match(path.replace(/~\d+(?=\.\w+$)/, ''), /^[A-Za-z0-9_.:+@=,/%-]+$/);
    const [, base = '', extension = ''] = /^(.*)\.(out|err|env|rdy)$/.exec(path) ?? assert.fail(`what is ${path}?`);
    groups.set(base, [...(groups.get(base) ?? []), extension]);
    if (extension === 'rdy') parseReady(content);
    else assert.equal(content, { out: 'out', err: '', env: 'env\n' }[extension]);
  }
  for (const [base, extensions] of groups) assert.deepEqual(extensions.sort(), ['env', 'err', 'out', 'rdy'], base);
  return groups.size;
}

/** No client has added or broken a line of the custody record. Returns the number of lines. */
function checkCustody(site: Site): number {
  assert.match(readFileSync(custodyFile(site), 'latin1'), /^[\x20-\x7e\n]*$/);
  const fd = openSync(custodyFile(site), 'r');
  try {
    const chain = new Chain(fd);
    const links = [...chain.walk()];
    assert.deepEqual([links.filter(({ fault }) => fault), chain.findTorn()], [[], []]);
    for (const { record } of links) assert.equal(JSON.parse(record?.text ?? '').event, 'deposit');
    return links.length;
  } finally {
    closeSync(fd);
  }
}

/**
 * Statuses with which a hostile request may end; all others of docs/protocol.md have other causes.
 */
const POSSIBLE = [200, 404, 405, 450, 454, 456, 457];

describe('hostile requests', () => {
  const start = (): { world: World; before: Map<string, string> } => {
    const world = makeWorld();
    return { world, before: readSurroundings(world) };
  };

  it('neither escape the tree nor break the log, in this process', () => {
    const { world, before } = start();
    const statuses = new Map<number, number>();
    for (const request of world.requests) {
      try {
        const answer = askHere(world, request);
        checkAnswer(answer, takeLog(world.site), request);
        statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
      } catch (error) {
        throw new Error(`${request.name}: ${JSON.stringify(request.env).slice(0, 600)}`, { cause: error });
      }
    }
    assert.deepEqual(readSurroundings(world), before);
    assert.ok(checkLocker(world.site) > 100, 'ids that are only strange are stored');
    assert.ok(checkCustody(world.site) > 100, 'and recorded');
    assert.deepEqual([...statuses.keys()].sort(), POSSIBLE);
    assert.ok((statuses.get(450) ?? 0) >= 500, 'most are refused for what they are');
  });

  it('neither escape the tree nor break the log, in processes of their own', async () => {
    const { world, before } = start();
    // A variable of a process contains no NUL and is at most 128 KiB long.
    const possible = world.requests.filter(({ env }) => Object.values(env).every((value) => !value?.includes('\0')));
    const step = Math.floor(possible.length / 40);
    for (const request of possible.filter((_, index) => index % step === 0)) {
      const answer = await askProcess(world, request);
      checkAnswer(answer, takeLog(world.site), request);
      assert.ok(POSSIBLE.includes(answer.status));
    }
    assert.deepEqual(readSurroundings(world), before);
    assert.ok(checkLocker(world.site) > 0, 'ids that are only strange are stored');
    assert.ok(checkCustody(world.site) > 0, 'and recorded');
  });
});
