// webjobctl with far fewer descriptors than there are uploads and segments of the custody record: a
// file that stays open after it was read, written or removed ends the command. Commands that
// read the ledger are not included, because they keep every log open while they read new lines.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { makeSite, type Site } from '../../scripts/site.ts';
import { WEBJOBCTL } from '../support/program-runs.ts';
import { plantGroup } from '../support/verify-site.ts';

const UPLOADS = 130;
/** Node itself has some twenty open, and 32 segments stay open. */
const DESCRIPTORS = 80;
const DAYS = 86_400_000;

let site: Site;
const jobOf = (number: number): string => `server_1_1085355126_${number}`;
const count = (extension: string): number =>
  readdirSync(site.incoming).filter((name) => name.endsWith(`.${extension}`)).length;

before(() => {
  site = makeSite({ settings: { PutNameFormat: '%cid_%cmd', UseGMT: 'Y' } });
  const places = { incomingDirectory: site.incoming, logfilesDirectory: join(site.base, 'logfiles') };
  for (let number = 0; number < UPLOADS; number++)
    plantGroup({ ...places, name: `u_${number}`, jobId: jobOf(number), out: `${number}`, err: '', segmentLimit: 1 });
  const past = new Date(Date.now() - 40 * DAYS);
  for (const name of readdirSync(site.incoming)) utimesSync(join(site.incoming, name), past, past);
});
after(() => site.remove());

function run(code: number, ...args: string[]): string {
  const words = [process.execPath, WEBJOBCTL, '--config', site.propertiesFile, ...args];
  const limited = ['-c', `ulimit -n ${DESCRIPTORS}; exec "$@"`, 'sh', ...words];
  const { status, stdout, stderr } = spawnSync('/bin/sh', limited, { encoding: 'utf8', timeout: 60_000 });
  assert.equal(status, code, `${args.join(' ')}: ${stdout}${stderr}`);
  return stdout;
}

describe(`webjobctl with ${DESCRIPTORS} descriptors`, () => {
  it('checks, signs and proves more uploads than that', () => {
    assert.ok(readdirSync(join(site.base, 'logfiles', 'nph-webjob-custody.server_1.d')).length > DESCRIPTORS);
    const key = join(site.root, 'custody');
    run(0, 'sign', 'keygen', key);
    run(0, 'verify');
    run(0, 'verify', jobOf(0));
    const checkpoint = run(0, 'custody', 'checkpoint', '--key', `${key}.key`, '--origin', 'example.org/webjob');
    writeFileSync(`${key}.note`, checkpoint);
    run(0, 'verify', '--custody', '--checkpoint', `${key}.note`, '--key', `${key}.pub`);
    run(0, 'custody', 'prove', jobOf(7));
  });

  it('packs, unpacks and removes more than that', () => {
    run(0, 'pack', '--older-than', '30d');
    assert.equal(count('rdy'), 0);
    run(0, 'verify');
    const [day = ''] = readdirSync(join(site.base, 'packed')).filter((name) => name.endsWith('.jsonl'));
    run(0, 'unpack', day.replace('.jsonl', ''));
    assert.equal(count('rdy'), UPLOADS);
    run(0, 'verify');
    run(0, 'prune', '--older-than', '30d', '--yes');
    assert.deepEqual(readdirSync(site.incoming), []);
  });
});
