// TempDirectory and SpoolDirectory on a machine with other users: where webjob works, where it
// refuses to, and what another user can gain.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  lchownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { parseRecord } from 'webjob-protocol';
import { PlacedProgram } from '../../client/program.ts';
import { findWeakness } from '../../client/safe-directory.ts';
import { type Ended, makeClient, WEBJOB } from '../support/client-job.ts';
import { type FakeServer, serve, splitRequest, startFake } from '../support/client-server.ts';
import { endSwapper } from '../support/hooks-link-race.ts';
import { openWorkshop } from '../support/pad-workshop.ts';
import { findWebUser } from '../support/tree.ts';

const SILENT: Ended = { code: 0, signal: null, stdout: '', stderr: '' };
const user = findWebUser();
const needsRoot = { skip: user === undefined && 'only root can start processes of another user' };
const client = makeClient();
const temp = join(client.root, 'above', 'temp');
let fake: FakeServer;

before(async () => {
  fake = await startFake();
  chmodSync(client.root, 0o755);
});
after(async () => {
  await fake.close();
  client.remove();
});
beforeEach(() => {
  rmSync(join(client.root, 'above'), { recursive: true, force: true });
  mkdirSync(temp, { recursive: true });
  for (const path of [temp, join(temp, '..')]) chmodSync(path, 0o755);
  fake.get = serve('#!/bin/sh\necho genuine\n');
  configure();
});

function configure(more: Record<string, string> = {}): void {
  client.configure({ URLGetURL: fake.url, URLPutURL: fake.url, TempDirectory: temp, ...more });
}

/** Runs a program; returns how webjob ended, and the streams of its PUT, if there was one. */
async function run(command: string[]): Promise<{ ended: Ended; body: string | undefined; requests: number }> {
  const earlier = fake.requests().length;
  const ended = await client.execute(command);
  const requests = fake.requests().slice(earlier).map(splitRequest);
  const put = requests.find(({ head }) => head.startsWith('PUT'));
  return { ended, body: put?.body.toString(), requests: requests.length };
}

describe('a directory in which another user could replace the program', needsRoot, () => {
  const above = join(temp, '..');
  const cases: [what: string, make: () => void, message: RegExp][] = [
    ['of everybody', () => chmodSync(temp, 0o777), /others can replace files in \S+\/temp$/],
    ['of a group', () => chmodSync(temp, 0o775), /others can replace files in \S+\/temp$/],
    ['of another user', () => chownSync(temp, user?.uid ?? 0, 0), /\/temp belongs to another user$/],
    [
      'of another user, sticky',
      () => {
        chownSync(temp, user?.uid ?? 0, 0);
        chmodSync(temp, 0o1777);
      },
      /\/temp belongs to another user$/,
    ],
    ['below one of another user', () => chownSync(above, user?.uid ?? 0, 0), /\/above belongs to another user$/],
    ['below one of everybody', () => chmodSync(above, 0o777), /others can replace files in \S+\/above$/],
    [
      "behind another user's link",
      () => {
        rmSync(temp, { recursive: true });
        mkdirSync(join(above, 'elsewhere'), { mode: 0o700 });
        symlinkSync('elsewhere', temp);
        lchownSync(temp, user?.uid ?? 0, 0);
      },
      /\/temp belongs to another user$/,
    ],
  ];
  for (const [what, make, message] of cases)
    it(`is refused before anything is fetched: ${what}`, async () => {
      make();
      const { ended, requests } = await run(['host.sh']);
      const [error = '', hint = '', ...more] = ended.stderr.split('\n');
      assert.match(error, /^webjob: error: TempDirectory: /);
      assert.match(error, message);
      assert.match(hint, /^webjob: hint: /);
      assert.deepEqual([ended.code, requests, more, readdirSync(temp)], [4, 0, [''], []]);
      configure({ TempDirectory: client.temp, SpoolDirectory: temp });
      const spooled = await run(['host.sh']);
      assert.match(spooled.ended.stderr, /SpoolDirectory: /);
      assert.deepEqual(readdirSync(temp), []);
    });

  it('does not include these owners and modes', async () => {
    const allowed: [what: string, make: () => void][] = [
      ['everybody, sticky', () => chmodSync(temp, 0o1777)],
      ['a group, sticky', () => chmodSync(temp, 0o1775)],
      ['below a group', () => chmodSync(above, 0o2775)],
      ['below a sticky one', () => chmodSync(above, 0o1777)],
      [
        'behind our own link',
        () => {
          rmSync(temp, { recursive: true });
          mkdirSync(join(above, 'elsewhere'), { mode: 0o700 });
          symlinkSync('elsewhere', temp);
        },
      ],
    ];
    for (const [what, make] of allowed) {
      for (const path of [temp, above]) chmodSync(path, 0o755);
      make();
      assert.equal(findWeakness(temp), undefined, what);
      assert.deepEqual((await run(['host.sh'])).ended, SILENT, what);
    }
  });

  it('is never usable by a waiting attacker, whose program runs 0 times of 200', async () => {
    const attacked = join(client.root, 'attacked');
    const source = `
      const { chmodSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } = require('node:fs');
      const [place, folder, mark] = process.argv.slice(1);
      process.stdout.write('ready\\n');
      for (let n = 0; ; n++) {
        const own = folder + '/own-' + process.pid;
        try {
          rmSync(own, { recursive: true, force: true });
          if (n % 3 === 0) mkdirSync(own);
          else writeFileSync(own, '#!/bin/sh\\necho attacked; id -u > ' + mark + '\\n', { mode: 0o755 });
          if (n % 3 === 1) rmSync(place, { recursive: true, force: true });
          renameSync(own, place);
        } catch {}
      }`;
    for (const mode of [0o1777, 0o1775]) {
      chmodSync(temp, mode);
      const place = join(temp, 'host.sh');
      const attacker = spawn(process.execPath, ['-e', source, place, temp, attacked], {
        stdio: ['ignore', 'pipe', 'inherit'],
        cwd: '/',
        ...user,
      });
      await once(attacker.stdout ?? attacker, 'data');
      const silence = mock();
      try {
        for (let run = 0; run < 40; run++) {
          const folder = join(temp, `webjob-${run}`);
          mkdirSync(folder, { mode: 0o700 });
          writeFileSync(join(folder, 'host.sh'), '#!/bin/sh\necho genuine\n', { mode: 0o600 });
          const placed = new PlacedProgram(join(folder, 'host.sh'), place, true);
          const { stdout } = spawnSync(placed.path, { encoding: 'utf8' });
          assert.equal(stdout, 'genuine\n', `run ${run}`);
          placed.remove();
          rmSync(folder, { recursive: true, force: true });
        }
      } finally {
        silence();
        await endSwapper(attacker);
        rmSync(place, { recursive: true, force: true });
      }
      assert.throws(() => statSync(attacked), /ENOENT/);
    }
  });
});

/** Suppresses warnings on the terminal; returns the function that ends that. */
function mock(): () => void {
  const { write } = process.stderr;
  process.stderr.write = () => true;
  return () => {
    process.stderr.write = write;
  };
}

describe('a name in TempDirectory that is already taken', () => {
  /** As made by a process of another user, when there can be one. */
  function plant(script: string): void {
    const { status, stderr } = spawnSync('sh', ['-c', script], { cwd: temp, encoding: 'utf8', ...user });
    assert.equal(status, 0, stderr);
  }

  it('stays, and the program runs nevertheless', async () => {
    chmodSync(temp, 0o1777);
    for (const script of ['mkdir host.sh', 'mkdir -p host.sh/full', 'mkdir -m 0 host.sh']) {
      plant(script);
      const { ended, body } = await run(['host.sh']);
      assert.match(
        ended.stderr,
        /^webjob: warning: \S+\/temp\/host\.sh cannot be written \(EISDIR\): the program runs in \S+\/temp\/webjob-\w{6}\n$/,
      );
      assert.deepEqual([ended.code, ended.stdout], [0, '']);
      assert.ok(body?.startsWith('genuine\n'));
      assert.deepEqual(readdirSync(temp), ['host.sh']);
      rmSync(join(temp, 'host.sh'), { recursive: true });
    }
  });

  it('may be a file of another user, when webjob does not run as root', needsRoot, async () => {
    chmodSync(temp, 0o1777);
    writeFileSync(join(temp, 'host.sh'), '#!/bin/sh\necho attacked\n', { mode: 0o755 });
    const conf = join(client.root, 'user.conf');
    writeFileSync(conf, readFileSync(client.conf), { mode: 0o600 });
    chownSync(conf, user?.uid ?? 0, user?.gid ?? 0);
    const earlier = fake.requests().length;
    const child = spawn(process.execPath, [WEBJOB, '--execute', '--file', conf, 'host.sh'], {
      stdio: ['ignore', 'ignore', 'pipe'],
      cwd: '/',
      env: { PATH: '/usr/bin:/bin' },
      ...user,
    });
    const stderr = await text(child);
    assert.match(stderr, /^webjob: warning: \S+ cannot be written \(E(?:PERM|ACCES)\): the program runs in \S+\n$/);
    const { body } = splitRequest(fake.requests()[earlier + 1] ?? Buffer.of());
    assert.ok(body.toString().startsWith('genuine\n'));
    assert.equal(readFileSync(join(temp, 'host.sh'), 'utf8'), '#!/bin/sh\necho attacked\n');
  });

  it('leaves TempDirectory/%payload beside a PaD file', async () => {
    const workshop = openWorkshop();
    try {
      const tool = workshop.add('tool', '#!/bin/sh\necho "payload: $*"\n', 0o755);
      fake.get = serve(readFileSync(workshop.make('tool.pad', [tool]), 'latin1'));
      for (const isTaken of [false, true]) {
        if (isTaken) mkdirSync(join(temp, 'tool.pad'));
        const command = ['tool.pad', 'sh', `${temp}/%payload`, 'of', '%payload', `--at=${temp}/%payload,${temp}/x`];
        const { ended, body = '' } = await run(command);
        assert.equal(ended.code, 0, ended.stderr);
        const folder = isTaken ? (/runs in (\S+)\n/.exec(ended.stderr)?.[1] ?? 'none') : temp;
        const output = `payload: of tool --at=${folder}/tool,${temp}/x\n`;
        assert.equal(body.slice(0, output.length), output);
        const { fields } = parseRecord(body.slice(body.indexOf('Version=')));
        assert.equal(fields.CommandLine, command.join(' '));
        assert.deepEqual(readdirSync(temp), isTaken ? ['tool.pad'] : []);
      }
    } finally {
      workshop.remove();
    }
  });

  it("is told from the run's own, which another run removed and webjob restores", () => {
    const fetched = join(temp, 'webjob-private');
    mkdirSync(fetched);
    writeFileSync(join(fetched, 'host.sh'), 'text');
    const place = join(temp, 'host.sh');
    const silence = mock();
    try {
      const placed = new PlacedProgram(join(fetched, 'host.sh'), place, true);
      assert.deepEqual([placed.path, placed.argumentsOf([`${temp}/%payload`])], [place, [`${temp}/%payload`]]);
      rmSync(place);
      assert.ok(placed.restore());
      assert.equal(placed.path, place);
      placed.remove();
      assert.deepEqual(readdirSync(fetched), []);
      mkdirSync(place);
      writeFileSync(join(fetched, 'host.sh'), 'text');
      const other = new PlacedProgram(join(fetched, 'host.sh'), place, true);
      assert.equal(other.path, join(fetched, 'host.sh'));
      assert.deepEqual(other.argumentsOf([`${temp}/%payload`, 'x']), [`${fetched}/%payload`, 'x']);
      other.remove();
      assert.deepEqual([readdirSync(fetched), readdirSync(place)], [[], []]);
    } finally {
      silence();
    }
  });

  it('costs no descriptor', () => {
    const count = (): number => readdirSync('/proc/self/fd').length;
    const [place, fetched] = [join(temp, 'host.sh'), join(temp, 'fetched')];
    writeFileSync(fetched, 'text');
    const placed = new PlacedProgram(fetched, place, true);
    const before = count();
    for (let round = 0; round < 20; round++) {
      rmSync(place);
      assert.ok(placed.restore());
    }
    placed.remove();
    assert.ok(count() <= before);
  });
});

async function text(child: ChildProcess): Promise<string> {
  const chunks: Buffer[] = [];
  child.stderr?.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(child, 'close');
  return Buffer.concat(chunks).toString();
}

describe('a file that decides what runs', needsRoot, () => {
  it('causes a warning when others can change it, and the job continues', async () => {
    const folder = join(client.root, 'etc');
    const [conf, imported, key] = ['webjob.conf', 'imported.conf', 'cas.pem'].map((name) => join(folder, name));
    const uid = user?.uid ?? 0;
    const lines = (): string =>
      readFileSync(client.conf, 'latin1').replace(
        /^TempDirectory.*\n/m,
        `Import=imported.conf\nSSLBundledCAsFile=${key}\n`,
      );
    const cases: [what: string, make: () => void, names: RegExp[]][] = [
      ['nobody', () => undefined, []],
      [
        'a group',
        () => chmodSync(conf ?? '', 0o660),
        [/^\S+webjob\.conf decides .* others can write to \S+: chmod go-w \S+$/],
      ],
      ['all', () => chmodSync(conf ?? '', 0o602), [/^\S+webjob\.conf .*: chmod go-w \S+$/]],
      ['all, the one imported', () => chmodSync(imported ?? '', 0o606), [/contains a password|imported\.conf decides/]],
      ['its owner', () => chownSync(imported ?? '', uid, 0), [/imported\.conf belongs to another user$/]],
      ['all, the CAs', () => chmodSync(key ?? '', 0o666), [/^\S+cas\.pem decides /]],
      ['all, the folder', () => chmodSync(folder, 0o777), Array(3).fill(/but others can replace files in \S+\/etc$/)],
      ["the folder's owner", () => chownSync(folder, uid, 0), Array(3).fill(/\/etc belongs to another user$/)],
    ];
    for (const [what, make, expected] of cases) {
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder, { mode: 0o755 });
      configure();
      writeFileSync(conf ?? '', lines(), { mode: 0o600 });
      writeFileSync(imported ?? '', `TempDirectory=${temp}\n`, { mode: 0o600 });
      writeFileSync(key ?? '', '', { mode: 0o600 });
      make();
      const child = spawn(process.execPath, [WEBJOB, '-e', '-f', conf ?? '', 'host.sh'], {
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      const warnings = (await text(child)).split('\n').filter(Boolean);
      assert.equal(child.exitCode, 0, warnings.join('\n'));
      assert.equal(warnings.length, expected.length, `${what}: ${warnings.join('\n')}`);
      for (const [index, pattern] of expected.entries())
        assert.match(warnings[index]?.replace(/^webjob: warning: /, '') ?? '', pattern, what);
    }
  });

  it('may be a pipe', async () => {
    configure();
    const child = spawn(
      'sh',
      ['-c', 'cat "$2" | "$0" "$1" -e -f /dev/stdin host.sh', process.execPath, WEBJOB, client.conf],
      {
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    );
    assert.equal(await text(child), '');
    assert.equal(child.exitCode, 0);
  });
});

describe('the name of a program', () => {
  it('is refused before anything is fetched when nothing could be stored under it', async () => {
    for (const [length, more, most] of [
      [248, {}, 247],
      [253, {}, 247],
      [1024, {}, 247],
      [256, { URLPutURL: '' }, 255],
      [252, { GetHookEnable: 'Y', GetHookSuffix: '.gpg', GetHookCommandLine: 'mv %file %cmd', URLPutURL: '' }, 251],
      [246, { GetHookEnable: 'Y', GetHookSuffix: '.encrypted', GetHookCommandLine: 'mv %file %cmd' }, 245],
    ] as const) {
      configure(more);
      const { ended, requests } = await run(['n'.repeat(length)]);
      assert.match(
        ended.stderr,
        new RegExp(`^webjob: error: the program's name must be 1 to ${most} bytes \\(got ${length}\\): [^\\n]+\\n$`),
      );
      assert.deepEqual([ended.code, requests], [1, 0]);
      const longest = await run(['n'.repeat(most)]);
      assert.deepEqual([longest.ended.code, longest.ended.stderr], [0, '']);
    }
  });
});
