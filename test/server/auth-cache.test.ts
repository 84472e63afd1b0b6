// The shipped apache/webjob-auth-cache.conf: httpd caches correct passwords, and no others.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type HttpdServer, startHttpd } from '../../scripts/httpd.ts';
import { addCommand, addUser, makeSite } from '../../scripts/site.ts';
import { askAs } from '../support/password-request.ts';
import { reloadHttpd } from '../support/wait.ts';

const snippet = join(import.meta.dirname, '..', '..', 'apache', 'webjob-auth-cache.conf');

describe('apache/webjob-auth-cache.conf', () => {
  const site = makeSite();
  let server: HttpdServer;
  before(async () => {
    addUser(site, 'client2', 'bar');
    addCommand(site, 'client2', 'host.sh', '#!/bin/sh\n');
    const places = `Define WEBJOB_CGI_DIRECTORY "${site.cgiDirectory}"\n`;
    const modules = ['authn_socache', 'socache_shmcb'];
    server = await startHttpd({ site, mpm: 'event', modules, after: `${places}Include "${snippet}"` });
  });
  after(async () => {
    await server?.stop();
    site.remove();
  });

  const ask = (client: string, password?: string): Promise<number> => askAs(server.url, client, password);
  const complaints = (): string => readFileSync(server.errorLog, 'utf8');

  it('accepts only the right password, the first time and from the cache', async () => {
    assert.deepEqual([await ask('client1', 'foo'), await ask('client1', 'foo')], [200, 200]);
    assert.equal(await ask('client2', 'bar'), 200);
    assert.deepEqual(
      [await ask('client1'), await ask('client1', 'bar'), await ask('client2', 'foo'), await ask('nobody', 'foo')],
      [401, 401, 401, 401],
    );
    assert.doesNotMatch(complaints(), /Segmentation|signal/i);
  });

  it('still admits a removed client until httpd is reloaded', async () => {
    const users = readFileSync(site.userFile, 'utf8');
    writeFileSync(site.userFile, users.replace(/^client2:.*\n/m, ''));
    assert.equal(await ask('client2', 'bar'), 200, 'from memory: the user file was not read');
    await reloadHttpd(server.pid);
    assert.equal(await ask('client2', 'bar'), 401);
    assert.equal(await ask('client1', 'foo'), 200);
  });

  it('accepts a new password once httpd is reloaded', async () => {
    const hash = createHash('sha1').update('new').digest('base64');
    writeFileSync(site.userFile, readFileSync(site.userFile, 'utf8').replace(/^client1:.*$/m, `client1:{SHA}${hash}`));
    assert.equal(await ask('client1', 'new'), 401, 'the old one is remembered');
    await reloadHttpd(server.pid);
    assert.deepEqual([await ask('client1', 'new'), await ask('client1', 'foo')], [200, 401]);
  });

  it('names the missing module', async () => {
    await assert.rejects(
      startHttpd({ site, mpm: 'event', after: `Include "${snippet}"` }),
      /webjob-auth-cache\.conf needs authn_socache_module/,
    );
  });
});
