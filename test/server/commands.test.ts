// findCommand on real directories: the order of the search, what is not a command, and links: those
// that stay inside are followed, and none leads out of ProfilesDirectory, not even one that is
// swapped during the lookup.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  closeSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { findCommand } from '../../cgi/commands.ts';
import { Refusal } from '../../cgi/refusal.ts';
import type { ServerSettings } from '../../cgi/setting-table.ts';
import { parseSettings } from '../../cgi/settings.ts';

const base = mkdtempSync(join(tmpdir(), 'webjob-commands-'));
const profiles = join(base, 'profiles');
after(() => rmSync(base, { recursive: true }));

beforeEach(() => {
  rmSync(profiles, { recursive: true, force: true });
  mkdirSync(join(profiles, 'client1', 'commands'), { recursive: true });
  put('../outside/secret.sh', 'secret');
});

/** Writes a file below profiles/. */
function put(path: string, content = path): void {
  mkdirSync(dirname(join(profiles, path)), { recursive: true });
  writeFileSync(join(profiles, path), content);
}

function link(path: string, target: string): void {
  symlinkSync(target, join(profiles, path));
}

function settingsFor(folderList = 'common'): ServerSettings {
  const problems: string[] = [];
  const settings = parseSettings(`BaseDirectory=${base}\nFolderList=${folderList}`, problems);
  assert.deepEqual(problems, []);
  return settings;
}

/**
 * What a client is served: the content; undefined for a file that does not exist; `457 why` for one
 * that cannot be served.
 */
function serve(fileName = 'host.sh', settings = settingsFor(), clientId = 'client1'): string | undefined {
  try {
    const command = findCommand(settings, clientId, fileName);
    if (command === undefined) return undefined;
    try {
      const content = readFileSync(command.fd, 'utf8');
      assert.equal(command.size, Buffer.byteLength(content));
      return content;
    } finally {
      closeSync(command.fd);
    }
  } catch (error) {
    if (error instanceof Refusal) return `${error.status} ${error.message}`;
    throw error;
  }
}

describe('findCommand', () => {
  it('looks in the documented directories, in their order', () => {
    const order = [
      ...['client1/commands/host.sh', 'client1/host.sh', 'b/commands/host.sh', 'b/host.sh'],
      ...['common/commands/host.sh', 'common/host.sh'],
    ];
    for (const path of [...order, 'other/host.sh', 'host.sh', 'commands/host.sh', 'client1/other/host.sh']) put(path);
    const settings = settingsFor('b:missing:common');
    for (const path of order) {
      assert.equal(serve('host.sh', settings), path);
      rmSync(join(profiles, path));
    }
    assert.equal(serve('host.sh', settings), undefined);
  });

  it('needs neither a directory of the client nor those of FolderList', () => {
    put('common/host.sh');
    assert.equal(serve('host.sh', settingsFor(), 'client9'), 'common/host.sh');
    // A file outside of all profile directories belongs to nobody.
    for (const path of ['host.sh', 'commands/host.sh']) put(path);
    assert.equal(serve('host.sh', settingsFor(''), 'client9'), undefined);
    assert.equal(serve('x'.repeat(1024)), undefined, 'a name longer than any file can have');
  });

  it('accepts a file with any name and any bytes', () => {
    for (const name of ['...', '-rf', 'a:b+c', 'commands.sh']) {
      put(`client1/${name}`, '');
      assert.equal(serve(name), '', name);
    }
  });

  it('refuses what is not a regular file, and does not fall back on a common one', async () => {
    put('common/host.sh');
    const path = join(profiles, 'client1', 'host.sh');
    mkdirSync(path);
    assert.equal(serve(), '457 not a regular file');
    rmSync(path, { recursive: true });
    assert.equal(spawnSync('mkfifo', [path]).status, 0);
    assert.equal(serve(), '457 not a regular file');
    rmSync(path);
    const server = createServer().listen(path);
    await once(server, 'listening');
    assert.equal(serve(), '457 cannot be opened: ENXIO');
    server.close();
    await once(server, 'close');
    link('client1/host.sh', '/dev/null');
    assert.equal(serve(), '457 not a regular file');
    rmSync(path);
    assert.equal(serve(), 'common/host.sh');
    assert.equal(serve('commands'), '457 not a regular file');
  });

  it('skips a file in place of a directory', () => {
    put('common/host.sh');
    rmSync(join(profiles, 'client1', 'commands'), { recursive: true });
    put('client1/commands');
    assert.equal(serve(), 'common/host.sh');
  });

  it('refuses a file that it may not read', { skip: process.getuid?.() === 0 && 'root may read everything' }, () => {
    put('client1/host.sh');
    chmodSync(join(profiles, 'client1', 'host.sh'), 0);
    assert.equal(serve(), '457 cannot be opened: EACCES');
  });

  it('leaves no descriptor open on any way out', { skip: process.platform !== 'linux' && 'needs /proc' }, () => {
    put('client1/host.sh');
    link('client1/out', '../../outside/secret.sh');
    const openFiles = (): number => readdirSync('/proc/self/fd').length;
    const before = openFiles();
    for (const name of ['host.sh', 'out', 'commands', 'missing']) serve(name);
    assert.equal(openFiles(), before);
  });
});

describe('links below ProfilesDirectory', () => {
  const OUTSIDE = '457 a link leads outside';

  it('are followed within it: to a file, to a directory, in a chain, absolute', () => {
    put('shared/host.sh', 'shared');
    link('client1/to-file', '../shared/host.sh');
    link('client1/to-link', 'to-file');
    link('client1/absolute', join(profiles, 'shared', 'host.sh'));
    link('client1/through-the-root', '../../profiles/shared/host.sh');
    link('client2', 'client1');
    link('client3', 'shared');
    for (const name of ['to-file', 'to-link', 'absolute', 'through-the-root'])
      assert.equal(serve(name), 'shared', name);
    assert.equal(serve('to-link', settingsFor(), 'client2'), 'shared');
    assert.equal(serve('host.sh', settingsFor(), 'client3'), 'shared');
  });

  it('are refused when they lead outside: to a file, to a directory, in a chain, absolute', () => {
    put('common/secret.sh');
    link('client1/secret.sh', '../../outside/secret.sh');
    link('client1/chain', 'secret.sh');
    link('client1/absolute', join(base, 'outside', 'secret.sh'));
    link('client1/passwd', '/etc/passwd');
    link('client2', '../outside');
    link('client3', 'client2');
    for (const name of ['secret.sh', 'chain', 'absolute', 'passwd']) assert.equal(serve(name), OUTSIDE, name);
    for (const clientId of ['client2', 'client3']) assert.equal(serve('secret.sh', settingsFor(), clientId), OUTSIDE);
    assert.equal(serve('secret.sh', settingsFor('client2'), 'client9'), OUTSIDE);
  });

  it("are refused when the target's name only begins like ProfilesDirectory", () => {
    put('../profiles2/secret.sh', 'secret');
    link('client1/secret.sh', '../../profiles2/secret.sh');
    assert.equal(serve('secret.sh'), OUTSIDE);
  });

  it('are refused when they lead outside from a commands directory', () => {
    rmSync(join(profiles, 'client1', 'commands'), { recursive: true });
    put('client1/secret.sh');
    link('client1/commands', '../../outside');
    assert.equal(serve('secret.sh'), OUTSIDE);
  });

  it('are refused when they dangle or form a cycle, and hide a common file', () => {
    put('common/dangling');
    put('common/circle');
    link('client1/dangling', 'missing');
    link('client1/circle', 'circle');
    assert.equal(serve('dangling'), '457 cannot be opened: ENOENT');
    assert.equal(serve('circle'), '457 cannot be opened: ELOOP');
  });

  it('may lead to ProfilesDirectory itself, and hard links count as files', () => {
    put('client1/host.sh', 'inside');
    renameSync(profiles, join(base, 'moved'));
    symlinkSync('moved', profiles);
    assert.equal(serve(), 'inside');
    rmSync(profiles);
    renameSync(join(base, 'moved'), profiles);
    linkSync(join(base, 'outside', 'secret.sh'), join(profiles, 'client1', 'hard'));
    assert.equal(serve('hard'), 'secret');
  });
});

const MIN_LOOKS = 3_000;
/** Long enough for a busy machine: the race ends as soon as both sides have been seen often. */
const RACE_LIMIT_MS = 20_000;

/**
 * Looks up `host.sh` while another process swaps a link between two targets; counts what was seen.
 */
async function race(path: string, inside: string, outside: string): Promise<Map<string, number>> {
  const swapper = await startSwapper(join(profiles, path), inside, outside);
  const seen = new Map<string, number>();
  try {
    const deadline = Date.now() + RACE_LIMIT_MS;
    for (let looks = 0; looks < MIN_LOOKS || (!sawBoth(seen) && Date.now() < deadline); looks++) {
      const result = serve() ?? 'nothing';
      seen.set(result, (seen.get(result) ?? 0) + 1);
    }
  } finally {
    swapper.kill('SIGKILL');
    if (swapper.exitCode === null && swapper.signalCode === null) await once(swapper, 'exit');
  }
  return seen;
}

function sawBoth(seen: Map<string, number>): boolean {
  return seen.has('inside') && [...seen.keys()].some((result) => result.startsWith('457 '));
}

async function startSwapper(path: string, inside: string, outside: string): Promise<ChildProcess> {
  const program = join(import.meta.dirname, '..', 'support', 'link-swapper.ts');
  const child = spawn(process.execPath, [program, path, inside, outside], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  return child;
}

describe('a link that is swapped during the lookup', () => {
  for (const [name, path, inside, outside] of [
    ['a file', 'client1/host.sh', '../shared/host.sh', '../../outside/host.sh'],
    ['a folder', 'client1/commands', '../shared', '../../outside'],
  ] as const) {
    it(`never lets ${name} from outside through`, async () => {
      rmSync(join(profiles, 'client1', 'commands'), { recursive: true });
      put('shared/host.sh', 'inside');
      put('../outside/host.sh', 'outside');
      link(path, inside);
      const seen = await race(path, inside, outside);
      assert.ok(!seen.has('outside'), `it did ${seen.get('outside')} times`);
      assert.ok(sawBoth(seen), 'both targets were seen');
      const others = [...seen.keys()].filter((result) => result !== 'inside' && !result.startsWith('457 '));
      assert.deepEqual(others, []);
    });
  }
});
