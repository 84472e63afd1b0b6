// TempDirectory and SpoolDirectory on file systems that cannot remove open files: everything is
// closed before it is removed, so that a run leaves nothing, and the exit code is that of the job.
import assert from 'node:assert/strict';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { paste, runWebjob, until } from '../support/client-job.ts';
import { type Home, REFUSES, startHome, TAKES } from '../support/client-kept.ts';
import { mountUnion, NO_UNION, type Union } from '../support/fuse.ts';
import { waitFor } from '../support/wait.ts';

const SILENT_SUCCESS = { code: 0, signal: null, stdout: '', stderr: '' };

describe('a file system that cannot remove open files', { skip: NO_UNION }, () => {
  let home: Home;
  let union: Union;
  before(async () => {
    home = await startHome();
    union = mountUnion();
  });
  after(async () => {
    union.remove();
    await home.close();
  });
  beforeEach(() => {
    for (const name of readdirSync(union.path)) rmSync(join(union.path, name), { recursive: true });
    mkdirSync(temp(), { mode: 0o755 });
    home.serve('echo out; echo err >&2; sleep 0.1');
  });

  const temp = (): string => join(union.path, 'temp');
  const spool = (): string => join(union.path, 'spool');
  const PLACES = {
    'TempDirectory is such a place': () => ({ TempDirectory: temp() }),
    'SpoolDirectory is': () => ({ SpoolDirectory: spool() }),
    'both are': () => ({ TempDirectory: temp(), SpoolDirectory: spool() }),
    'LockFile is as well': () => ({ TempDirectory: temp(), LockFile: join(union.path, 'lock') }),
    'a hook makes the program there': () => ({
      TempDirectory: temp(),
      GetHookEnable: 'Y',
      GetHookSuffix: '.in',
      GetHookCommandLine: 'cp %file %cmd; sleep 0.1',
    }),
  };

  it('fails to remove the directory of an open file', async () => {
    const folder = join(union.path, 'proof');
    mkdirSync(folder);
    const fd = openSync(join(folder, 'open'), 'wx');
    rmSync(join(folder, 'open'));
    assert.throws(() => rmdirSync(folder), { code: 'ENOTEMPTY' });
    closeSync(fd);
    // FUSE tells the file system of the end of the file a moment later.
    await waitFor('the end of the open file', () => readdirSync(folder).length === 0);
    rmdirSync(folder);
  });

  for (const [what, controls] of Object.entries(PLACES)) {
    it(`lets a job succeed without a message and without leftovers: ${what}`, async () => {
      home.reset(controls());
      const uploads = await home.uploadsOf(async () =>
        assert.deepEqual(await home.client.execute(['job.sh']), SILENT_SUCCESS),
      );
      assert.deepEqual([uploads.length, uploads[0]?.out.toString()], [1, 'out\n']);
      nothingIsLeft();
    });

    it(`keeps a job whose PUT fails; the hint delivers it once and leaves nothing: ${what}`, async () => {
      home.reset(controls());
      home.fake.put = REFUSES;
      const { code, stderr } = await home.client.execute(['job.sh']);
      const [, command = ''] = /hint: (webjob --flush .*)\n$/.exec(stderr) ?? [];
      assert.equal(code, 5);
      home.fake.put = TAKES;
      const uploads = await home.uploadsOf(async () => {
        const flushed = await paste(command);
        assert.deepEqual([flushed.code, flushed.stderr], [0, 'webjob: delivered 1 of 1 job\n']);
      });
      assert.deepEqual([uploads.length, uploads[0]?.err.toString()], [1, 'err\n']);
      nothingIsLeft();
    });

    // Two runs for each combination of file systems.
    if (what !== 'both are') continue;
    it(`keeps a job when a signal comes in PUT: ${what}`, async () => {
      home.reset(controls());
      let isSending = false;
      home.fake.put = () => {
        isSending = true;
      };
      const { child, ended } = home.client.start(['job.sh']);
      await until(() => isSending, 'the upload has begun');
      child.kill('SIGTERM');
      const [, command = ''] = /to deliver it: (webjob --flush .*)\n$/.exec((await ended).stderr) ?? [];
      home.fake.put = TAKES;
      const uploads = await home.uploadsOf(async () => assert.equal((await paste(command)).code, 0));
      assert.equal(uploads.length, 1);
      nothingIsLeft();
    });
  }

  it('lets a LockFile there keep a second run away', async () => {
    home.reset({ LockFile: join(union.path, 'lock') });
    home.serve('sleep 2');
    const first = home.client.start(['job.sh']);
    await until(() => existsSync(join(home.client.temp, 'job.sh')), 'the first run has begun');
    assert.equal((await home.client.execute(['job.sh'])).code, 6);
    assert.deepEqual(await first.ended, SILENT_SUCCESS);
    nothingIsLeft();
  });

  it('lets UnlinkOutput=N leave the output and nothing else', async () => {
    home.reset({ TempDirectory: temp(), SpoolDirectory: spool(), UnlinkOutput: 'N' });
    assert.deepEqual(await home.client.execute(['job.sh']), SILENT_SUCCESS);
    const [folder = '', ...more] = readdirSync(temp());
    assert.deepEqual([readdirSync(join(temp(), folder)).sort(), more], [['job.sh.err', 'job.sh.out'], []]);
  });

  it('keeps nothing of a program that cannot be fetched', async () => {
    home.reset({ TempDirectory: temp() });
    home.fake.get = (socket) => socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n');
    assert.equal((await home.client.execute(['job.sh'])).code, 3);
    nothingIsLeft();
  });

  it('delivers a job once when another process holds a file open, and reports what stays', async () => {
    home.reset({ SpoolDirectory: spool() });
    home.fake.put = REFUSES;
    await home.client.execute(['job.sh']);
    const [job = ''] = readdirSync(spool());
    const fd = openSync(join(spool(), job, 'out'), 'r');
    home.fake.put = TAKES;
    const flush = () => runWebjob(['--flush', '--file', home.client.conf]);
    const first = await home.uploadsOf(async () => {
      const { code, stderr } = await flush();
      assert.equal(code, 0);
      assert.match(stderr, /^webjob: warning: the server has the job in \S+, but it cannot be removed: ENOTEMPTY\n/);
    });
    closeSync(fd);
    const second = await home.uploadsOf(async () => assert.equal((await flush()).code, 0));
    assert.deepEqual([first.length, second.length], [1, 0]);
    nothingIsLeft();
  });

  function nothingIsLeft(): void {
    const folders = ['spool', 'temp'].filter((name) => existsSync(join(union.path, name)));
    assert.deepEqual(union.leftBelow(), folders);
    assert.deepEqual(home.client.left(), []);
  }
});
