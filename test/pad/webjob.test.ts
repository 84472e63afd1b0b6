// PaD files end to end: made by pad-make-script, served by the CGI under httpd, run by a client
// that does not know them. The article's example installs an rpm; here dpkg inspects and unpacks a
// package, which does not change this machine.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { parseRecord } from 'webjob-protocol';
import { type Ended, until } from '../support/client-job.ts';
import { type ClientSite, startClientSite, type Upload } from '../support/client-site.ts';
import { findProgram, openWorkshop, type Workshop } from '../support/pad-workshop.ts';

const SILENT_SUCCESS: Ended = { code: 0, signal: null, stdout: '', stderr: '' };
let home: ClientSite;
let shop: Workshop;

before(async () => {
  home = await startClientSite();
  shop = openWorkshop();
});
after(async () => {
  shop.remove();
  await home.close();
});
beforeEach(() => {
  home.configure();
  for (const name of readdirSync(home.client.temp)) rmSync(join(home.client.temp, name), { recursive: true });
  for (const name of readdirSync(home.site.incoming)) rmSync(join(home.site.incoming, name));
});

/** Serves a PaD file of these payloads under a name. */
function serve(name: string, payloads: readonly string[]): Buffer {
  const pad = readFileSync(shop.make(name, payloads));
  home.add(name, pad);
  return pad;
}

/** The article's `/var/tmp/%payload` in this test. */
const inTemp = (rest = ''): string => `${home.client.temp}/%payload${rest}`;

/** Runs it and uploads the output; webjob must be silent, succeed and leave nothing. */
async function deliver(command: readonly string[]): Promise<Upload> {
  assert.deepEqual(await home.client.execute(command), SILENT_SUCCESS);
  assert.deepEqual(home.client.left(), []);
  return home.takeUpload();
}

describe("the article's installation of a package", () => {
  const skip = findProgram('dpkg-deb') === undefined && 'dpkg-deb is not installed';

  before(() => {
    if (skip) return;
    const root = shop.folder('package');
    mkdirSync(join(root, 'DEBIAN'));
    mkdirSync(join(root, 'usr', 'bin'), { recursive: true });
    writeFileSync(join(root, 'usr', 'bin', 'myprogram'), '#!/bin/sh\necho it works\n', { mode: 0o755 });
    const control = { Package: 'myprograms', Version: '1.0', Architecture: 'all', Maintainer: 'A <a@example.com>' };
    const lines = Object.entries({ ...control, Description: 'the programs of the article' });
    writeFileSync(join(root, 'DEBIAN', 'control'), lines.map(([key, value]) => `${key}: ${value}\n`).join(''));
    execFileSync('dpkg-deb', ['--build', '--root-owner-group', root, join(shop.path, 'myprograms.deb')], {
      stdio: 'pipe',
    });
    serve('myprograms.deb.pad', [join(shop.path, 'myprograms.deb')]);
  });

  it('shows its contents', { skip }, async () => {
    const { out, err, env } = await deliver(['myprograms.deb.pad', 'dpkg', '-I', inTemp()]);
    assert.match(out.toString(), /^ Package: myprograms$/m);
    assert.equal(err.toString(), '');
    const { Command, CommandLine, KidStatus, KidReason } = parseRecord(env).fields;
    assert.deepEqual([Command, KidStatus, KidReason], ['myprograms.deb.pad', '0', 'The kid exited cleanly.']);
    assert.equal(CommandLine, `myprograms.deb.pad dpkg -I ${home.client.temp}/%payload`);
  });

  it('unpacks it', { skip }, async () => {
    const there = join(shop.path, 'installed');
    await deliver(['myprograms.deb.pad', 'dpkg-deb', '-x', inTemp(), there]);
    assert.equal(execFileSync(join(there, 'usr', 'bin', 'myprogram'), { encoding: 'utf8' }), 'it works\n');
  });

  it('reports what dpkg prints and exits as it does', { skip }, async () => {
    const { out, err, env } = await deliver(['myprograms.deb.pad', 'dpkg', '-I', inTemp('.none')]);
    assert.equal(out.toString(), '');
    assert.match(err.toString(), /dpkg-deb: error: .*myprograms\.deb\.none/);
    assert.equal(parseRecord(env).fields.KidStatus, '2');
  });
});

describe("the article's toolbox of the forensic investigator", () => {
  it('carries a script and the tools it needs', async () => {
    const collect =
      '#!/bin/sh\ntools=$(dirname "$0")\n"$tools/ftimes" --mapfull "$tools/testbinaries.cfg"\n"$tools/cat" "$1"\n';
    shop.add('collect.sh', collect, 0o755);
    shop.add('ftimes', '#!/bin/sh\necho "ftimes $1 $(basename "$2")"; cat "$2" >&2\n', 0o755);
    shop.add('testbinaries.cfg', 'Include=/bin\n');
    const cat = findProgram('cat') ?? '';
    serve('toolbox.pad', [...['collect.sh', 'ftimes', 'testbinaries.cfg'].map((name) => join(shop.path, name)), cat]);
    const evidence = shop.add('messages', 'evidence\n');
    const { out, err } = await deliver(['toolbox.pad', inTemp('/collect.sh'), evidence]);
    assert.equal(out.toString(), 'ftimes --mapfull testbinaries.cfg\nevidence\n');
    assert.equal(err.toString(), 'Include=/bin\n');
  });
});

describe('a PaD file', () => {
  it('is listed when nothing is to be delivered', async () => {
    serve('data.pad', [shop.add('data', 'abc\n')]);
    const sum = 'edeaaff3f1774ad2888673770c6d64097e391bc362d7d6fb34982ddf0efd18cb';
    const { out } = await deliver(['data.pad']);
    assert.equal(out.toString(), `data: file of 4 bytes, SHA-256 ${sum}: OK\n`);
  });

  it('runs nothing when it was damaged on the server, and the record says so', async () => {
    const pad = serve('data.pad', [shop.add('data', 'good\n')]).toString('latin1');
    home.add('data.pad', pad.replace(btoa('good\n'), btoa('evil\n')));
    const mark = join(shop.path, 'mark');
    const { err, env } = await deliver(['data.pad', 'touch', mark]);
    assert.equal(err.toString(), 'data.pad: error: damaged: its SHA-256 has changed\n');
    assert.equal(parseRecord(env).fields.KidStatus, '125');
    assert.ok(!existsSync(mark));
  });

  it('is ended with its command after RunTimeLimit, and its payload is removed', async () => {
    serve('data.pad', [shop.add('data', 'abc\n')]);
    home.configure({ RunTimeLimit: '1', TimeoutSignal: '15' });
    const { code } = await home.client.execute(['data.pad', 'sleep', '300']);
    assert.equal(code, 4);
    await until(() => home.client.left().length === 0, 'the folder is empty');
  });

  it('can be run again with --overwrite when it was killed before its cleanup', async () => {
    serve('data.pad', [shop.add('data', 'abc\n')]);
    // Long enough to unpack on a busy machine.
    home.configure({ RunTimeLimit: '8', TimeoutSignal: '9' });
    assert.equal((await home.client.execute(['data.pad', 'sleep', '300'])).code, 4);
    assert.deepEqual(home.client.left(), ['data']);
    home.takeUpload();
    home.configure();
    const { out } = await deliver(['data.pad', '--overwrite', 'cat', inTemp()]);
    assert.equal(out.toString(), 'abc\n');
  });
});
