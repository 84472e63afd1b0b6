// OverwriteExistingFiles=Y with KeepDifferingUploads=N lets a client replace its own uploads. Job
// ids come from clients, so the name must keep uploads of different clients apart.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { makeLockerSite } from '../support/locker-site.ts';
import { readFiles } from '../support/tree.ts';

const GUIDE = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'guide', 'client.md'), 'utf8');
const RECOMMENDED = /^PutNameFormat=(.*)$/m.exec(GUIDE)?.[1] ?? '';

/** What a client with a similar name leaves of another's upload, and whether configtest warns. */
async function attack(format: string): Promise<{ kept: boolean; replacesOwn: boolean; warned: boolean }> {
  const its = makeLockerSite({ PutNameFormat: format, OverwriteExistingFiles: 'Y', KeepDifferingUploads: 'N' });
  try {
    const victim = { clientId: 'web_1', fileName: 'host.sh', jobId: 'server_1_1085355126_00723' };
    await its.put({ ...victim, out: 'early' });
    await its.put({ ...victim, out: 'evidence' });
    const { status } = await its.put({ clientId: 'web', fileName: 'host.sh', jobId: `1_${victim.jobId}`, out: 'gone' });
    assert.equal(status, 200);
    const outs = [...readFiles(its.site.incoming)].flatMap(([path, text]) => (path.endsWith('.out') ? [text] : []));
    const { text } = await its.webjobctl('configtest');
    return {
      kept: outs.includes('evidence'),
      replacesOwn: !outs.includes('early'),
      warned: /can replace the upload of another client/.test(text),
    };
  } finally {
    its.close();
  }
}

describe('KeepDifferingUploads=N', () => {
  it('lets no client replace the uploads of another, as the guide recommends it', async () => {
    assert.deepEqual(await attack(RECOMMENDED), { kept: true, replacesOwn: true, warned: false });
  });

  for (const format of ['%cid_%jid_%cmd', '%jid', 'x_%cid_%cmd_%jid'])
    it(`draws a warning from configtest with ${format}`, async () => {
      assert.equal((await attack(format)).warned, true);
    });

  it('loses uploads with a name format that a job id can forge', async () => {
    assert.equal((await attack('%cid_%jid_%cmd')).kept, false);
  });

  it('draws no warning with the shipped name format', async () => {
    assert.equal((await attack('%cid_%Y%m%d%H%M%S_%pid_%cmd')).warned, false);
  });
});
