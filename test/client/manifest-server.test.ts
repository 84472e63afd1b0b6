// The manifest that is sent with a program: the file beside it, in base64, or one made by a
// GetHook; malformed ones are not sent.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { MAX_MANIFEST_BYTES } from 'webjob-protocol';
import { addCommand, configure, makeSite, type Site } from '../../scripts/site.ts';
import { runBare } from '../support/bare.ts';
import { prepareSite } from '../support/hooks-site.ts';
import { makeSigner, manifestOf, signedManifest } from '../support/signed-programs.ts';
import { parseAnswer, type StrictAnswer } from '../support/strict-client.ts';
import { findWebUser } from '../support/tree.ts';
import { formatHead } from '../support/wire-request.ts';

const PROGRAM = '#!/bin/sh\nhostname\n';
const NOTE = signedManifest(manifestOf(PROGRAM, { name: 'host.sh' }), [makeSigner('site.example/alice')]);
const base64 = (text: string): string => Buffer.from(text).toString('base64');

let site: Site;
let spool: string;
let path: string;
before(() => {
  site = makeSite();
  ({ spool } = prepareSite(site));
  path = join(site.profiles, 'client1', 'host.sh.manifest');
  addCommand(site, 'client1', 'host.sh', PROGRAM);
});
after(() => site.remove());
afterEach(() => {
  rmSync(path, { force: true, recursive: true });
  assert.deepEqual(readdirSync(spool), []);
});

let errors = '';
async function ask(settings: Record<string, string> = {}): Promise<StrictAnswer> {
  configure(site, settings);
  const options = { settingsFile: site.propertiesFile, user: findWebUser(), timeLimitSeconds: 60 };
  const { stdout, stderr } = await runBare(Buffer.from(formatHead('GET', {}), 'latin1'), options);
  errors = stderr;
  const answer = parseAnswer(stdout);
  assert.equal(answer.status, 200, stderr);
  return answer;
}
const manifestIn = (answer: StrictAnswer): string | undefined => answer.headers.get('webjob-payload-manifest');

describe('the manifest beside a program', () => {
  it('travels with the program in one header, which is missing without the file', async () => {
    assert.equal(manifestIn(await ask()), undefined);
    writeFileSync(path, NOTE);
    const answer = await ask();
    assert.deepEqual([manifestIn(answer), answer.body.toString(), errors], [base64(NOTE), PROGRAM, '']);
  });

  it('may have 4096 bytes of any value', async () => {
    const longest = Buffer.alloc(MAX_MANIFEST_BYTES, '\r\nSet-Cookie: a\r\n\0');
    writeFileSync(path, longest);
    assert.equal(manifestIn(await ask()), longest.toString('base64'));
  });

  for (const [what, make, why] of [
    ['empty', () => writeFileSync(path, ''), 'not 1 to 4096 bytes'],
    ['longer', () => writeFileSync(path, 'x'.repeat(MAX_MANIFEST_BYTES + 1)), 'not 1 to 4096 bytes'],
    ['a folder', () => mkdirSync(path), 'not a regular file'],
    ['outside the profiles', () => symlinkSync('/etc/hostname', path), 'a link leads outside'],
  ] as const)
    it(`is left out when it is ${what}, and the error log says why`, async () => {
      make();
      assert.equal(manifestIn(await ask()), undefined);
      assert.equal(errors, `nph-webjob: manifest client1/host.sh.manifest: ${why}\n`);
    });
});

describe('the manifest of GetHook output', () => {
  const hook = (command: string): Record<string, string> => ({ GetHookEnable: 'Y', GetHookCommandLine: command });

  it('is what the hook writes to %manifest, not that of the file', async () => {
    writeFileSync(path, NOTE);
    assert.equal(manifestIn(await ask(hook('cat %file'))), undefined);
    assert.equal(manifestIn(await ask(hook('cat %file; cat %file.manifest > %manifest'))), base64(NOTE));
    const both = await ask(hook('echo made; printf "a\\n\\nb" > %manifest; echo c2ln > %sig'));
    assert.deepEqual([manifestIn(both), both.headers.get('webjob-payload-signature')], [base64('a\n\nb'), 'c2ln']);
  });

  it('is missing when it is invalid, and nothing of the hook remains', async () => {
    for (const [command, why] of [
      ['true %manifest', ''],
      ['rm %manifest', 'ENOENT'],
      ['head -c 4097 /dev/zero > %manifest', 'not 1 to 4096 bytes'],
      ['rm %manifest; mkdir -p %manifest/a', ''],
      ['rm %manifest; ln -s %manifest %manifest', 'ELOOP'],
    ] as const) {
      const answer = await ask(hook(`echo made; ${command}`));
      assert.deepEqual([manifestIn(answer), answer.body.toString()], [undefined, 'made\n'], command);
      assert.match(
        errors,
        why === '' ? /^(?!.*manifest of GetHook: (?:not|ELOOP))/ : new RegExp(`manifest of GetHook: .*${why}`),
        command,
      );
    }
  });
});
