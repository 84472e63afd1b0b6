// The shipped apache/webjob-auth-dbm.conf, and the command of the guide that makes its file: httpd
// accepts exactly the users of the user file, as soon as the DBM file is made.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chownSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type HttpdServer, startHttpd } from '../../scripts/httpd.ts';
import { obtainHtpasswd, obtainHttpd } from '../../scripts/httpd-package.ts';
import { addCommand, addUser, makeSite } from '../../scripts/site.ts';
import { findWebUser } from '../../scripts/web-user.ts';
import { readBlock } from '../support/authentication-guide.ts';
import { runWebjobctl } from '../support/operator.ts';
import { askAs } from '../support/password-request.ts';

const snippet = join(import.meta.dirname, '..', '..', 'apache', 'webjob-auth-dbm.conf');

obtainHtpasswd();
const SEARCH_PATH = `${process.env.PATH}:/usr/sbin:/sbin`;
const isMissing = spawnSync('httxt2dbm', { env: { PATH: SEARCH_PATH } }).error ? 'no httxt2dbm' : false;

describe('apache/webjob-auth-dbm.conf', { skip: isMissing }, () => {
  const site = makeSite();
  const etc = dirname(site.userFile);
  let server: HttpdServer;
  before(async () => {
    for (const client of ['client2', 'client3']) addCommand(site, client, 'host.sh', '#!/bin/sh\n');
    make();
    const places = `Define WEBJOB_CGI_DIRECTORY "${site.cgiDirectory}"\nDefine WEBJOB_AUTH_DBM_FILE "${etc}/webjob-users.db"\n`;
    server = await startHttpd({ site, mpm: 'event', modules: ['authn_dbm'], after: `${places}Include "${snippet}"` });
  });
  after(async () => {
    await server?.stop();
    site.remove();
  });

  /** As in the guide, with the paths of this site. */
  function make(): void {
    const user = process.getuid?.() === 0 ? findWebUser() : undefined;
    if (user) chownSync(site.userFile, 0, user.gid);
    const command = readBlock('sh auth-dbm').replaceAll('/usr/local/apache/etc', etc);
    execFileSync('sh', ['-ec', command], { env: { PATH: SEARCH_PATH }, stdio: 'pipe' });
  }

  const ask = (client: string, password?: string): Promise<number> => askAs(server.url, client, password);

  it('accepts only the right password', async () => {
    assert.equal(await ask('client1', 'foo'), 200);
    assert.deepEqual([await ask('client1'), await ask('client1', 'bar'), await ask('nobody', 'foo')], [401, 401, 401]);
  });

  it('is readable only by the web user, and leaves no other file', () => {
    assert.equal(statSync(join(etc, 'webjob-users.db')).mode & 0o777, 0o640);
    assert.equal(statSync(join(etc, 'webjob-users.db')).gid, statSync(site.userFile).gid);
    assert.deepEqual(
      readdirSync(etc).filter((name) => name.startsWith('webjob-users')),
      ['webjob-users.db'],
    );
  });

  it('takes effect as soon as the file is made', async () => {
    addUser(site, 'client2', 'bar');
    assert.equal(await ask('client2', 'bar'), 401, 'the user file is not read');
    make();
    assert.equal(await ask('client2', 'bar'), 200);
    mkdirSync(join(site.root, 'client2'));
    const words = ['--config', site.propertiesFile, 'client', 'passwd', 'client2', '--password-file', '-'];
    const changed = await runWebjobctl([...words, '--out', join(site.root, 'client2')], { input: 'new\n' });
    assert.equal(changed.code, 0, changed.stderr);
    make();
    assert.deepEqual([await ask('client2', 'new'), await ask('client2', 'bar')], [200, 401]);
    const removed = await runWebjobctl(['--config', site.propertiesFile, 'client', 'remove', 'client2']);
    assert.equal(removed.code, 0, removed.stderr);
    assert.equal(await ask('client2', 'new'), 200, 'until the file is made');
    make();
    assert.deepEqual([await ask('client2', 'new'), await ask('client1', 'foo')], [401, 200]);
  });

  it('fails to prove the removal of a client that is removed only from the user file', async () => {
    addUser(site, 'client2', 'bar');
    make();
    const { binary } = obtainHttpd();
    const apply = [
      '--apply',
      '--url',
      server.url,
      '--httpd',
      binary,
      '--httpd-conf',
      join(dirname(server.errorLog), 'httpd.conf'),
    ];
    const words = ['--config', site.propertiesFile, 'client', 'remove', 'client2', ...apply];
    const { code, stderr } = await runWebjobctl(words);
    assert.equal(code, 4);
    assert.match(
      stderr,
      /does not accept users of .*, so removing one there proves nothing\n.* httpd reads a DBM file, make it from the user file/,
    );
    assert.equal(await ask('client2', 'bar'), 200);
    make();
    assert.equal(await ask('client2', 'bar'), 401);
  });

  it('reads the user file as httpd does', async () => {
    const users = readFileSync(site.userFile, 'utf8');
    addUser(site, 'client3', 'first');
    addUser(site, 'client3', 'second');
    addUser(site, ' \tclient2', 'blank');
    writeFileSync(site.userFile, `# client1:x\nno colon\n\na b:x\n${readFileSync(site.userFile, 'utf8')}`);
    make();
    assert.deepEqual(
      [await ask('client1', 'foo'), await ask('client3', 'first'), await ask('client3', 'second')],
      [200, 200, 401],
    );
    assert.equal(await ask('client2', 'blank'), 200);
    writeFileSync(site.userFile, users);
    make();
    assert.equal(await ask('client2', 'blank'), 401);
  });

  it('names the missing module', async () => {
    await assert.rejects(
      startHttpd({ site, mpm: 'event', after: `Include "${snippet}"` }),
      /webjob-auth-dbm\.conf needs authn_dbm_module/,
    );
  });
});
