// File systems with names shorter than 255 bytes: a PUT whose names are refused gets 450 and leaves
// nothing; and what configtest says of a site on FUSE, where such file systems occur.
import assert from 'node:assert/strict';
import { chownSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { configure } from '../../scripts/site.ts';
import { runBare } from '../support/bare.ts';
import { mountOverlay, NO_OVERLAY, type Union } from '../support/fuse.ts';
import { type LockerSite, makeLockerSite } from '../support/locker-site.ts';
import { inject, NO_STRACE } from '../support/locker-strace.ts';
import { makeScratch } from '../support/locker-upload.ts';
import { findWebUser, readFiles, readLog } from '../support/tree.ts';
import { formatHead, type Put } from '../support/wire-request.ts';

const SETTINGS = { PutNameFormat: '%jid_%cmd', OverwriteExistingFiles: 'Y' };
const REFUSED =
  / 450 -- Invalid Query: FILENAME or Job-Id gives an upload name that is too long: \w+ failed: ENAMETOOLONG$/;

let its: LockerSite;
beforeEach(() => {
  its = makeLockerSite(SETTINGS);
});
afterEach(() => its.close());

function upload(more: Partial<Put> = {}): Put {
  return { clientId: 'client1', fileName: 'host.sh', jobId: 'job', out: 'out', err: 'err', env: 'env\n', ...more };
}

describe('names that the file system refuses', { skip: NO_STRACE }, () => {
  const put = async (more: Partial<Put>, wrapper: string[]): Promise<string> => {
    const { out, err, env } = upload(more);
    const raw = Buffer.from(`${formatHead('PUT', upload(more))}${out}${err}${env}`, 'latin1');
    const options = { settingsFile: its.site.propertiesFile, user: findWebUser(), timeLimitSeconds: 60, wrapper };
    return (await runBare(raw, options)).stdout.toString('latin1');
  };
  const refuse = (path: string): string[] =>
    inject(join(makeScratch(its.site, 'traces'), 'trace'), 'openat:error=ENAMETOOLONG', [
      join(its.site.incoming, `job_host.sh${path}`),
    ]);

  for (const path of ['.lck', '.out', '.env'])
    it(`leave nothing behind for a ${path} name`, async () => {
      assert.match(await put({}, refuse(path)), /^HTTP\/1\.1 450 /);
      assert.match(readLog(its.site.base).at(-1) ?? '', REFUSED);
      assert.deepEqual([...readFiles(its.site.incoming).keys()], []);
    });

  for (const [path, keep] of [
    ['~2.lck', 'Y'],
    ['~2.err', 'Y'],
    ['.out.new', 'N'],
    ['.env.new', 'N'],
  ] as const)
    it(`leave the first upload alone for a ${path} name`, async () => {
      configure(its.site, { ...SETTINGS, KeepDifferingUploads: keep });
      assert.equal((await its.put(upload())).status, 200);
      const before = readFiles(its.site.incoming);
      assert.match(await put({ out: 'other' }, refuse(path)), /^HTTP\/1\.1 450 /);
      assert.match(readLog(its.site.base).at(-1) ?? '', REFUSED);
      assert.deepEqual(readFiles(its.site.incoming), before);
    });
});

describe('a locker on fuse-overlayfs', { skip: NO_OVERLAY }, () => {
  let overlay: Union;
  beforeEach(() => {
    overlay = mountOverlay();
    const user = findWebUser();
    if (user) chownSync(overlay.path, user.uid, user.gid);
  });
  afterEach(() => overlay.remove());

  it('accepts an upload whose longest name has 251 bytes, and answers 450 for one byte more', async () => {
    configure(its.site, { ...SETTINGS, OverwriteExistingFiles: 'N', IncomingDirectory: overlay.path });
    const putLong = async (length: number): Promise<number> => {
      const jobId = 'j'.repeat(length - '_host.sh.out'.length);
      return (await its.put(upload({ jobId }))).status;
    };
    assert.deepEqual([await putLong(252), await putLong(255)], [450, 450]);
    for (const line of readLog(its.site.base)) assert.match(line, REFUSED);
    assert.deepEqual(overlay.leftBelow(), []);
    assert.equal(await putLong(251), 200);
    assert.equal(overlay.leftBelow().length, 4);
  });

  it('draws a note from configtest, as does its log, and nothing else does', async () => {
    const readNotes = async (): Promise<string[]> => {
      const findings = await its.readJson<{ severity: string; what: string; where: string }>('configtest');
      return findings.flatMap(({ severity, what, where }) =>
        /FUSE/.test(what) ? [`${severity} ${where} ${what}`] : [],
      );
    };
    assert.deepEqual(await readNotes(), []);
    const says = (control: string): string =>
      `note ${overlay.path} ${control} is on a FUSE file system: some confirm the fsync of a directory without doing it, and a power failure can then lose acknowledged files`;
    configure(its.site, { ...SETTINGS, IncomingDirectory: overlay.path });
    assert.deepEqual(await readNotes(), [says('IncomingDirectory')]);
    configure(its.site, { ...SETTINGS, LogfilesDirectory: overlay.path });
    assert.deepEqual(await readNotes(), [says('LogfilesDirectory')]);
  });
});
