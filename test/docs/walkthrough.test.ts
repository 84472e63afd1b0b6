// The 2004 article's walk-through, literally: its tree with owners and modes, its settings,
// host.sh, its command line; then its two log lines and its four files, in form.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, renameSync, statSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { parseLogLine, parseRecord, RECORD_FIELDS } from 'webjob-protocol';
import { startHttpd } from '../../scripts/httpd.ts';
import { makeSite, type Site, writeClientConf } from '../../scripts/site.ts';
import { findWebUser } from '../support/tree.ts';

const WEBJOB = join(import.meta.dirname, '..', '..', 'dist', 'webjob');
const DATE = '\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d';
const JOB_ID = 'server_1_\\d{10}_\\d{5,}';

function runClient(conf: string, ...command: string[]): { code: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [WEBJOB, '--execute', '--file', conf, ...command], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  return { code: status, stdout, stderr };
}

/** `drwxr-xr-x www-data root` for a file, as ls shows it. */
function describeOwner(path: string): string {
  return execFileSync('stat', ['-c', '%A %U %G', path], { encoding: 'utf8' }).trim();
}

function checkJob(site: Site, getLine: string, putLine: string): void {
  const pattern = (rest: string): RegExp => new RegExp(`^${DATE} ${JOB_ID} client1 127\\.0\\.0\\.1 ${rest}$`);
  assert.match(getLine, pattern('GET client1 host\\.sh 0 19 \\d+ 200 -- Success'));
  assert.match(putLine, pattern('PUT client1 host\\.sh \\d+ 0 \\d+ 200 -- Success'));
  const { jobId, bytesReceived } = parseLogLine(putLine);
  assert.equal(parseLogLine(getLine).jobId, jobId, 'one job id ties both together');

  const files = readdirSync(site.incoming).sort();
  const base = files[0]?.slice(0, -4) ?? '';
  assert.match(base, /^client1_\d{14}_\d{5,}_host\.sh$/);
  assert.deepEqual(
    files,
    ['env', 'err', 'out', 'rdy'].map((extension) => `${base}.${extension}`),
  );
  const read = (extension: string): string => readFileSync(join(site.incoming, `${base}.${extension}`), 'utf8');
  assert.equal(read('rdy'), `Jid=${jobId}\n`);
  assert.equal(read('out'), `${hostname()}\n`);
  assert.equal(read('err'), '');
  assert.equal(bytesReceived, read('out').length + read('err').length + read('env').length);

  const record = parseRecord(read('env'));
  assert.deepEqual(Object.keys(record.fields), [...RECORD_FIELDS]);
  assert.deepEqual(record.extra, []);
  const { ClientId, GetRequest, Command, CommandLine, Jid, KidStatus, KidSignal, KidReason } = record.fields;
  assert.deepEqual(
    { ClientId, GetRequest, Command, CommandLine, Jid, KidStatus, KidSignal, KidReason },
    {
      ClientId: 'client1',
      GetRequest: 'host.sh',
      Command: 'host.sh',
      CommandLine: 'host.sh',
      Jid: jobId,
      KidStatus: '0',
      KidSignal: '0',
      KidReason: 'The kid exited cleanly.',
    },
  );
}

for (const mpm of ['prefork', 'event'] as const) {
  describe(`the article's walk-through with ${mpm}`, async () => {
    const site = makeSite();
    const server = await startHttpd({ site, mpm });
    const conf = writeClientConf(site, server.url);
    after(async () => {
      await server.stop();
      site.remove();
    });

    it('starts from the tree of the article', { skip: !findWebUser() && 'owners need root' }, () => {
      const owners = (path: string): string => describeOwner(join(site.base, path)).replace(/ \S+$/, '');
      assert.equal(owners(''), 'drwxr-xr-x root');
      assert.equal(owners('incoming'), 'drwxr-xr-x www-data');
      assert.equal(owners('logfiles'), 'drwxr-xr-x root');
      assert.equal(owners('logfiles/nph-webjob.log'), '-rw-r--r-- www-data');
      assert.equal(owners('profiles'), 'drwxr-xr-x root');
      assert.equal(owners('profiles/client1/host.sh'), '-rw-r--r-- root');
      assert.equal(readFileSync(site.propertiesFile, 'utf8').trimEnd(), `BaseDirectory=${site.base}`);
    });

    it('gets host.sh from profiles/client1/, runs it and uploads its output', () => {
      assert.deepEqual(runClient(conf, 'host.sh'), { code: 0, stdout: '', stderr: '' });
      const [getLine = '', putLine = '', ...more] = readFileSync(site.logFile, 'utf8').trimEnd().split('\n');
      assert.deepEqual(more, []);
      checkJob(site, getLine, putLine);
    });

    it('leaves program and output in TempDirectory, as the conf file says', () => {
      assert.equal(readFileSync(join(site.root, 'client', 'host.sh'), 'utf8'), '#!/bin/sh\nhostname\n');
      assert.equal(statSync(join(site.root, 'client', 'host.sh')).mode & 0o777, 0o700);
    });

    it('stores files of mode 0644 that belong to the web user', { skip: !findWebUser() && 'owners need root' }, () => {
      for (const name of readdirSync(site.incoming)) {
        assert.match(describeOwner(join(site.incoming, name)), /^-rw-r--r-- www-data /);
      }
    });

    it('gets the same from profiles/client1/commands/', () => {
      for (const name of readdirSync(site.incoming)) renameSync(join(site.incoming, name), join(site.root, name));
      const commands = join(site.profiles, 'client1', 'commands');
      mkdirSync(commands, { recursive: true });
      renameSync(join(site.profiles, 'client1', 'host.sh'), join(commands, 'host.sh'));
      assert.deepEqual(runClient(conf, 'host.sh'), { code: 0, stdout: '', stderr: '' });
      const [getLine = '', putLine = ''] = readFileSync(site.logFile, 'utf8').trimEnd().split('\n').slice(-2);
      checkJob(site, getLine, putLine);
    });
  });
}
