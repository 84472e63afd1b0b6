// What lies in a pack is still shown and searched: an upload by real CGI processes, packed by webjobctl itself.
import assert from 'node:assert/strict';
import { readdirSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { makeLockerSite } from './locker-site.ts';

describe('webjobctl show and search of a packed upload', () => {
  const its = makeLockerSite();
  const { site, webjobctl, readJson } = its;
  let jobId: string;
  before(async () => {
    const record = { KidStatus: '3' };
    jobId = await its.run({ clientId: 'client1', fileName: 'host.sh', out: 'packed\xff\n', err: 'a needle\n', record });
    const longAgo = Date.now() / 1000 - 5 * 86_400;
    for (const name of readdirSync(site.incoming)) utimesSync(join(site.incoming, name), longAgo, longAgo);
    const { stderr, exitCode } = await webjobctl('pack', '--older-than', '2d');
    assert.equal(exitCode, 0, stderr);
    assert.deepEqual(readdirSync(site.incoming), []);
  });
  after(its.close);

  it('tells how it ended, and gives a stream byte for byte', async () => {
    const [shown] = await readJson<Record<string, unknown>>('show', jobId);
    assert.deepEqual([shown?.state, shown?.exitCode, shown?.group], ['failed', 3, null]);
    assert.match(String(shown?.pack), /^\d{4}-\d\d-\d\d: client1_\d{14}_\d+_host\.sh$/);
    assert.equal((await webjobctl('show', jobId, '--out')).stdout.toString('latin1'), 'packed\xff\n');
    assert.match((await webjobctl('show', jobId)).text, /\nPacked in: .*\n[\s\S]*\na needle\n$/);
  });

  it('finds its lines', async () => {
    const { text } = await webjobctl('search', 'needle');
    assert.equal(text, `client1 host.sh ${jobId} err:1: a needle\n`);
    assert.equal((await webjobctl('search', 'needle', '--since', '1d')).exitCode, 1);
    assert.equal((await webjobctl('search', 'needle', '--since', '6d', '--client', 'client*')).exitCode, 0);
  });
});
