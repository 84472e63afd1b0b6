// A program that ends does not wait for Node to free its memory, and loses no output by that.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatLogLine, formatTime } from 'webjob-protocol';
import { makeLockerSite } from '../support/locker-site.ts';

const WEBJOBCTL = join(import.meta.dirname, '..', '..', 'dist', 'webjobctl');
/** Far more output than a pipe holds. */
const JOBS = 3000;

describe('the end of a program', () => {
  const its = makeLockerSite({ UseGMT: 'Y' });
  after(its.close);

  const line = (number: number): string =>
    formatLogLine({
      time: formatTime(new Date(1_085_535_120_000 + number * 1000), true),
      remoteUser: 'client1',
      jobId: `server_1_${1_085_535_120 + number}_00001`,
      remoteAddress: '127.0.0.1',
      method: 'GET',
      clientId: 'client1',
      fileName: 'host.sh',
      bytesReceived: 0,
      bytesSent: 0,
      seconds: 0,
      status: 200,
      message: 'Success',
    });

  it('comes after a slow reader has everything that was written', async () => {
    writeFileSync(its.site.logFile, Array.from({ length: JOBS }, (_, number) => `${line(number)}\n`).join(''));
    const args = [WEBJOBCTL, '--config', its.site.propertiesFile, '--json', 'jobs'];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    const code = new Promise((resolve) => child.on('exit', resolve));
    let text = '';
    for await (const piece of child.stdout) {
      text += piece;
      await sleep(5);
    }
    assert.equal(await code, 0);
    assert.equal(text.split('\n').length, JOBS + 1);
    assert.equal(JSON.parse(text.trimEnd().split('\n').at(-1) ?? '').client, 'client1');
  });

  it('leaves a complete store, and no log of anything the store lacks', async () => {
    assert.equal((await its.webjobctl('index')).exitCode, 0);
    assert.equal((await its.webjobctl('jobs', '--limit', '1')).exitCode, 0);
    assert.deepEqual(readdirSync(join(its.site.base, 'index')), ['webjob.sqlite']);
  });
});
