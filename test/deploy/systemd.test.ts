// The shipped units checked with systemd's own programs, as far as they work on a machine that
// systemd does not run.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { makeSite } from '../../scripts/site.ts';
import { get } from '../support/resident-requests.ts';
import { findWebUser } from '../support/tree.ts';
import { waitFor } from '../support/wait.ts';

const UNITS = [
  ...(['webjob.service', 'webjob.socket', 'webjob-view.service', 'webjob-view.socket'] as const),
  ...(['webjob-acts.service', 'webjob-acts.path', 'webjob-acts.timer'] as const),
];
const SCRIPT = '/usr/lib/cgi-bin/webjob/nph-webjob.cgi';
const CONTROL = '/usr/local/bin/webjobctl';
const VIEW = '/usr/lib/cgi-bin/webjob-view/webjob-view.cgi';
const read = (unit: string): string => readFileSync(join(import.meta.dirname, '../../apache/systemd', unit), 'utf8');
const missing = (program: string): string | false =>
  spawnSync(program, ['--version']).status !== 0 && `${program} is not installed`;

describe('the systemd units', { skip: missing('systemd-analyze') || (!findWebUser() && 'no www-data') }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'webjob-units-'));
  after(() => rmSync(folder, { recursive: true }));

  /** systemd's messages about them, with an existing script instead of the installed one. */
  function verify(change = (text: string): string => text): { status: number | null; said: string } {
    const paths = UNITS.map((unit) => join(folder, unit));
    for (const [index, path] of paths.entries())
      writeFileSync(
        path,
        change(
          read(UNITS[index] ?? '')
            .replace(SCRIPT, process.execPath)
            .replace(VIEW, process.execPath)
            .replace(CONTROL, process.execPath),
        ),
      );
    const { status, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', ...paths], { encoding: 'utf8' });
    return { status, said: stderr };
  }

  it('are accepted by systemd', () => {
    assert.match(read('webjob.service'), new RegExp(`^ExecStart=${SCRIPT} `, 'm'));
    assert.match(read('webjob-view.service'), new RegExp(`^ExecStart=${VIEW} `, 'm'));
    assert.match(read('webjob-acts.service'), new RegExp(`^ExecStart=${CONTROL} .* acts$`, 'm'));
    assert.deepEqual(verify(), { status: 0, said: '' });
  });

  it('are rejected with a misspelt word', () => {
    assert.match(
      verify((text) => text.replace('NoNewPrivileges', 'NoNewPrivilege')).said,
      /Unknown key .*NoNewPrivilege/,
    );
  });
});

describe('timers in the guides', { skip: missing('systemd-analyze') }, () => {
  const [, schedule = ''] =
    /^OnCalendar=(.*)$/m.exec(readFileSync(join(import.meta.dirname, '../../docs/guide/client.md'), 'utf8')) ?? [];

  it('skip no hour when summer time ends', () => {
    // 2026-10-25 in Berlin: at 01:00 UTC it is 2 o'clock for the second time.
    const args = ['calendar', '--iterations=4', '--base-time=2026-10-24 23:30:00 UTC', schedule];
    const env = { ...process.env, TZ: 'Europe/Berlin', LC_ALL: 'C' };
    const { stdout, stderr } = spawnSync('systemd-analyze', args, { encoding: 'utf8', env });
    const hours = [
      ...stdout.matchAll(/(?:Next elapse|Iteration #\d+|Iter\. #\d+|\(in UTC\)): .*? (\d\d:\d\d):00 UTC/g),
    ].map(([, hour]) => hour);
    assert.deepEqual([...new Set(hours)], ['00:00', '01:00', '02:00', '03:00'], stdout + stderr);
  });
});

describe('systemd-socket-activate', { skip: missing('systemd-socket-activate') }, () => {
  it('starts what the unit starts on the first request, and hides the socket from its caller', async () => {
    const site = makeSite({ resident: true });
    const socket = join(site.root, 'activated');
    const [, words = ''] = /^ExecStart=\S+ (.+)$/m.exec(read('webjob.service')) ?? [];
    const [, options = ''] = /^Environment="(.+)"$/m.exec(read('webjob.service')) ?? [];
    assert.match(words, /^--processes \d+ --idle \d+$/);
    const command = [join(site.cgiDirectory, 'nph-webjob.cgi'), ...words.replace(/\d+$/, '3').split(' ')];
    const child = spawn(
      'systemd-socket-activate',
      ['--listen', socket, `--setenv=${options}`, process.execPath, ...command],
      { stdio: ['ignore', 'ignore', 'pipe'], env: { PATH: process.env.PATH } },
    );
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk;
    });
    const ended = new Promise((resolve) => child.on('exit', resolve));
    try {
      // The socket has its name before anyone listens.
      await waitFor('an answer', async () => (await get(socket, site)).status === 200);
      for (let count = 0; count < 4; count++) assert.equal((await get(socket, site)).status, 200);
      assert.equal(await ended, 0, said);
      assert.ok(existsSync(socket));
    } finally {
      child.kill('SIGKILL');
      site.remove();
    }
  });
});
