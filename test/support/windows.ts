// npm run test:windows: the built client on Windows, as far as Wine is Windows, with a real httpd
// on this machine. It takes minutes and installs Wine, so no other run of the tests includes it.
// windows.test.ts covers what Wine does differently from Windows.
import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { parseRecord, type RunRecord } from 'webjob-protocol';
import { type Ended, until } from './client-job.ts';
import { type ClientSite, startClientSite } from './client-site.ts';
import { startWine, toWindows, type Wine } from './wine.ts';

const GOOD = { code: 0, signal: null, stdout: '', stderr: '' };

let wine: Wine;
let home: ClientSite;
let cwd: string;

before(async () => {
  wine = startWine();
  home = await startClientSite();
  cwd = join(home.client.root, 'current');
  mkdirSync(cwd);
});
after(async () => {
  await home?.close();
  wine?.stop();
});
beforeEach(() => {
  for (const folder of [home.client.temp, home.site.incoming, cwd])
    for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true });
});

function configure(more: Record<string, string> = {}): void {
  home.configure({ TempDirectory: toWindows(home.client.temp), ...more });
}

const execute = (...command: string[]): Promise<Ended> =>
  wine.run(['--execute', '--file', toWindows(home.client.conf), ...command], cwd);

const batch = (...lines: string[]): string => ['@echo off', ...lines, ''].join('\r\n');

/** A Windows system program, under any name. */
const add = (name: string, from: string): void => home.add(name, readFileSync(join(wine.system32, from)));

/** The stdout of the only upload as lines, and its run record. */
function takeRun(): { out: string[]; run: Partial<RunRecord['fields']> } {
  const { out, env } = home.takeUpload();
  const { KidStatus, KidReason, RunError } = parseRecord(env).fields;
  return { out: out.toString().split('\r\n').slice(0, -1), run: { KidStatus, KidReason, RunError } };
}

const ENDED = { KidStatus: '0', KidReason: 'The kid exited cleanly.', RunError: 'NA' };

/** Nothing of a job may be left in TempDirectory. */
function assertClean(): void {
  assert.deepEqual(home.client.left(), []);
}

describe('a batch file', () => {
  /** Most would create `pwned` if cmd.exe interpreted them. */
  const HOSTILE = [
    ['plain', 'two words', '&echo x>pwned', '"&echo x>pwned&"', '""&echo x>pwned', '^"&echo x>pwned', '|echo x>pwned'],
    ['x>pwned', '(x)&&echo x>pwned', 'a^b!OS!', 'C:\\two words\\', '\\"&echo x>pwned', ',;=', ''],
  ];

  for (const ending of ['bat', 'cmd'])
    it(`.${ending} is run, with arguments that cannot inject`, async () => {
      configure();
      const lines = ['echo [%1]', 'set x="%~1"', 'shift'];
      home.add(`args.${ending}`, batch(...Array(7).fill(lines).flat(), 'echo complaint 1>&2', 'exit /b 3'));
      for (const args of HOSTILE) {
        assert.deepEqual(await execute(`args.${ending}`, ...args), GOOD);
        const { out, run } = takeRun();
        const quoted = args.map((arg) => arg.replace(/(\\*)"/g, '$1$1""').replace(/(\\+)$/, '$1$1'));
        assert.deepEqual(
          out,
          quoted.map((arg) => (arg === 'plain' ? '[plain]' : `["${arg}"]`)),
        );
        assert.deepEqual(run, { KidStatus: '3', KidReason: 'The kid exited with a status of 3.', RunError: 'NA' });
        assert.equal(existsSync(join(cwd, 'pwned')), false);
      }
      assertClean();
    });

  it('is given no argument that cmd.exe would change', async () => {
    configure();
    home.add('args.bat', batch('echo [%1]'));
    for (const [argument, why] of [
      ['%OS%', 'must not contain a %, which cmd.exe would expand'],
      ['100%', 'must not contain a %, which cmd.exe would expand'],
      ['a\necho x>pwned', 'must not contain a control character, which cmd.exe would not pass on'],
      ['x'.repeat(8192), 'must be at most 8191 characters for cmd.exe'],
    ] as const) {
      const { code, stderr } = await execute('args.bat', argument);
      assert.equal(code, 1, why);
      assert.ok(stderr.includes(why), stderr);
    }
    assert.deepEqual(readdirSync(home.site.incoming), []);
    assertClean();
  });

  it('is found in a folder whose name cmd.exe would take apart', async () => {
    const temp = join(home.client.temp, "it's (a) & b^c");
    mkdirSync(temp);
    configure({ TempDirectory: toWindows(temp) });
    home.add('here.bat', batch('echo here'));
    assert.deepEqual(await execute('here.bat'), GOOD);
    assert.deepEqual(takeRun().out, ['here']);
  });

  it('prints more than a pipe holds', async () => {
    configure();
    const text = Array.from({ length: 40_000 }, (_, index) => `line ${index} of many\r\n`).join('');
    writeFileSync(join(cwd, 'many.txt'), text);
    home.add('many.bat', batch('type many.txt'));
    assert.deepEqual(await execute('many.bat'), GOOD);
    assert.equal(home.takeUpload().out.toString(), text);
  });
});

describe('a program', () => {
  it('.exe is run with its arguments', async () => {
    configure();
    add('host.exe', 'hostname.exe');
    assert.deepEqual(await execute('host.exe'), GOOD);
    assert.deepEqual(takeRun(), { out: [hostname().toUpperCase().slice(0, 15)], run: ENDED });
    add('shell.exe', 'cmd.exe');
    assert.deepEqual(await execute('shell.exe', '/d', '/c', 'exit 7'), GOOD);
    assert.equal(takeRun().run.KidStatus, '7');
    assertClean();
  });

  it('of another kind is reported as one that Windows does not run', async () => {
    configure();
    home.add('host.sh', '#!/bin/sh\nhostname\n');
    // Windows would start this instead.
    copyFileSync(join(wine.system32, 'hostname.exe'), join(home.client.temp, 'host.sh.exe'));
    assert.equal((await execute('host.sh')).code, 4);
    assert.match(takeRun().run.RunError ?? '', /^cannot be run: Windows runs files whose names end in \.exe, /);
  });

  it('is not fetched under a name that Windows does not keep', async () => {
    configure();
    for (const name of ['nul.bat', 'COM1', 'host.exe:x', 'host.exe.']) {
      const { code, stderr } = await execute(name);
      assert.equal(code, 1, name);
      assert.match(stderr, /^webjob: error: Windows cannot store a program named /);
    }
  });

  it('is not confused with one in the current folder', async () => {
    configure({ RunTimeLimit: '3' });
    for (const name of ['cmd.exe', 'taskkill.exe', 'slow.bat'])
      copyFileSync(join(wine.system32, 'hostname.exe'), join(cwd, name));
    home.add('slow.bat', batch('echo slow', 'ping -n 40 127.0.0.1 >nul'));
    assert.equal((await execute('slow.bat')).code, 4);
    assert.deepEqual(takeRun().out, ['slow']);
  });

  it('runs twice at once', async () => {
    configure();
    add('ping.exe', 'ping.exe');
    const first = execute('ping.exe', '-n', '30', '127.0.0.1');
    await until(() => home.client.left().some((path) => path.endsWith('ping.exe')), 'the first runs');
    assert.deepEqual(await execute('ping.exe', '-n', '1', '127.0.0.1'), GOOD);
    assert.deepEqual(takeRun().run, ENDED);
    assert.deepEqual(await first, GOOD);
    assert.deepEqual(takeRun().run, ENDED);
    assertClean();
  });

  it('that is a batch file goes on when another run of it has ended', async () => {
    configure();
    home.add('two.bat', batch('if "%~1"=="slow" ping -n 30 127.0.0.1 >nul', 'echo whole'));
    const first = execute('two.bat', 'slow');
    await until(() => home.client.left().some((path) => path.endsWith('two.bat')), 'the first runs');
    assert.deepEqual(await execute('two.bat'), GOOD);
    assert.deepEqual(takeRun(), { out: ['whole'], run: ENDED });
    assert.deepEqual(await first, GOOD);
    assert.deepEqual(takeRun(), { out: ['whole'], run: ENDED });
    assertClean();
  });

  it('stays in TempDirectory with UnlinkExecutable=N, and is replaced there or not', async () => {
    configure({ UnlinkExecutable: 'N' });
    home.add('stay.bat', batch('echo stay'));
    for (let time = 0; time < 2; time++) {
      assert.deepEqual(await execute('stay.bat'), GOOD);
      home.takeUpload();
      assert.deepEqual(home.client.left(), ['stay.bat']);
    }
    configure({ UnlinkExecutable: 'N', OverwriteExecutable: 'N' });
    const { code, stderr } = await execute('stay.bat');
    assert.equal(code, 4);
    assert.match(stderr, /stay\.bat cannot be written: EEXIST\n/);
    rmSync(join(home.client.temp, 'stay.bat'));
    assert.deepEqual(await execute('stay.bat'), GOOD);
    assert.deepEqual(home.client.left(), ['stay.bat']);
  });
});

describe('RunTimeLimit', () => {
  // Wine's taskkill does not know /t and fails, which tests that case.
  for (const [name, ...args] of [['ping.exe', '-n', '40', '127.0.0.1'], ['slow.bat']] as const)
    it(`ends ${name} also when taskkill fails`, async () => {
      configure({ RunTimeLimit: '3' });
      add('ping.exe', 'ping.exe');
      home.add('slow.bat', batch('ping -n 40 127.0.0.1 >nul', 'echo too late'));
      const startedAt = Date.now();
      const { code, stderr } = await execute(name, ...args);
      assert.ok(Date.now() - startedAt < 35_000);
      assert.equal(code, 4);
      assert.match(stderr, /^webjob: warning: taskkill failed: process \d+ was ended, /);
      assert.deepEqual([takeRun().run.RunError], ['ended by RunTimeLimit after 3 seconds']);
    });
});

describe('a GetHook', () => {
  const hook = (command: string): void =>
    configure({ GetHookEnable: 'Y', GetHookSuffix: '.in', GetHookCommandLine: command });

  it('with quotes at both ends makes the program', async () => {
    hook('"C:\\windows\\system32\\cmd.exe" /d /c copy "%file" "%cmd"');
    home.add('hooked.bat.in', batch('echo hooked & echo "&"'));
    assert.deepEqual(await execute('hooked.bat'), GOOD);
    assert.deepEqual(takeRun().out, ['hooked ', '"&"']);
    assertClean();
  });

  it('that fails ends the job, and one that hangs is ended', async () => {
    hook('exit 5');
    home.add('hooked.bat.in', batch('echo hooked'));
    assert.match((await execute('hooked.bat')).stderr, /^webjob: error: the GetHook ended with 5 instead of 0\n/);
    configure({
      GetHookEnable: 'Y',
      GetHookSuffix: '.in',
      GetHookTimeLimit: '3',
      GetHookCommandLine: 'ping -n 40 127.0.0.1 >nul',
    });
    const { code, stderr } = await execute('hooked.bat');
    assert.equal(code, 3);
    assert.match(stderr, /webjob: error: the GetHook ended with GetHookTimeLimit after 3 seconds\n/);
    // Without a taskkill that knows /t, what the hook started continues in the directory.
    assert.match(stderr, /\\webjob-\w{6} cannot be removed \(\w+\): another process uses it\n/);
  });
});

describe('a job', () => {
  it('that cannot be put waits, and is delivered by the command in the hint', async () => {
    const { url } = home.server;
    configure({ URLPutURL: `${url}/nowhere` });
    home.add('wait.bat', batch('echo waited'));
    const { code, stderr } = await execute('wait.bat');
    assert.equal(code, 5);
    const [, folder = ''] = /webjob --flush (\S+) --file \S+\r?\n$/.exec(stderr) ?? [];
    assert.match(folder, /\\webjob-\w{6}$/);
    configure();
    const flushed = await wine.run(['--flush', folder, '--file', toWindows(home.client.conf)], cwd);
    assert.deepEqual([flushed.code, flushed.stderr], [0, 'webjob: delivered 1 of 1 job\n']);
    assert.deepEqual(takeRun().out, ['waited']);
    assertClean();
  });

  it('is kept in SpoolDirectory while it is sent, and leaves nothing there', async () => {
    const spool = join(home.client.temp, 'spool');
    configure({ SpoolDirectory: toWindows(spool) });
    home.add('wait.bat', batch('echo spooled'));
    assert.deepEqual(await execute('wait.bat'), GOOD);
    assert.deepEqual(takeRun().out, ['spooled']);
    assert.deepEqual(readdirSync(spool), []);
  });

  it('holds LockFile, and no longer than it runs', async () => {
    configure({ LockFile: toWindows(join(home.client.temp, 'lock')) });
    home.add('hold.bat', batch('if "%~1"=="slow" ping -n 30 127.0.0.1 >nul', 'echo held'));
    const first = execute('hold.bat', 'slow');
    await until(() => home.client.left().some((path) => path.endsWith('hold.bat')), 'the first runs');
    assert.equal((await execute('hold.bat')).code, 6);
    assert.deepEqual(await first, GOOD);
    assertClean();
    home.takeUpload();
    assert.deepEqual(await execute('hold.bat'), GOOD);
    assertClean();
  });
});
