// docs/guide/stolen.md is correct: its commands as they are written, one after the other, and its
// settings in a client.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { openResultSigner } from '../../client/result.ts';
import { openSealer } from '../../client/seal.ts';
import { readSettings } from '../../client/settings.ts';
import { WEBJOBCTL } from '../support/program-runs.ts';

const page = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'guide', 'stolen.md'), 'utf8');
const root = mkdtempSync(join(tmpdir(), 'webjob-stolen-'));
after(() => rmSync(root, { recursive: true }));
const at = (name: string): string => join(root, name);

describe('docs/guide/stolen.md', () => {
  const blocks = [...page.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, text = '']) => text);
  const run = (start: string): { status: number | null; stdout: string; stderr: string } => {
    const text = blocks.shift() ?? '';
    assert.ok(text.startsWith(start), text);
    const bin = at('bin');
    mkdirSync(bin, { recursive: true });
    writeFileSync(join(bin, 'webjobctl'), `#!/bin/sh\nexec "${process.execPath}" "${WEBJOBCTL}" "$@"\n`, {
      mode: 0o755,
    });
    const env = { ...process.env, PATH: `${bin}:${process.env.PATH}` };
    const words = ['-e', '-c', text.replaceAll('/var/webjob/', '')];
    const { status, stdout, stderr } = spawnSync('/bin/sh', words, { cwd: root, env, encoding: 'utf8' });
    return { status, stdout, stderr };
  };
  const expect = (start: string, code: number, output: RegExp): void => {
    const { status, stdout, stderr } = run(start);
    assert.deepEqual([status, stderr.replace(/^webjobctl: [^:]*\n/gm, '')], [code, ''], `${start}: ${stderr}`);
    assert.match(stdout, output);
  };

  it('makes keys, trusts them, and signs a program with two', () => {
    writeFileSync(at('host.sh'), '#!/bin/sh\nhostname\n');
    expect('webjobctl sign keygen alice', 0, /^alice\.key\nalice\.pub\nalice\.vkey\nbob\.key\n/);
    expect('webjobctl sign trust add', 0, /^WEIGHT .*\n +1 .*site\.example\/alice\n +1 .*site\.example\/bob\n$/);
    expect('webjobctl sign payload', 0, /good {5}host\.sh\.manifest\n$/);
  });

  it('shows a manifest as sign show does', () => {
    const shown = spawnSync(process.execPath, [WEBJOBCTL, 'sign', 'show', 'host.sh'], { cwd: root, encoding: 'utf8' });
    const example = /^\$ webjobctl sign show host\.sh\n(.*?)^```$/ms.exec(page)?.[1] ?? '';
    const blurred = (text: string): string =>
      text.replace(/(?:serial|not|signed) .*/g, (line) => line.replace(/\d|[a-f]/g, 'x'));
    assert.equal(blurred(example).replace(/x+$/gm, ''), blurred(shown.stdout).replace(/x+$/gm, ''));
  });

  it('finds unsigned programs, replaces a key without a gap, and revokes another', () => {
    mkdirSync(at('profiles/web-1/commands'), { recursive: true });
    for (const name of ['host.sh', 'host.sh.sig', 'host.sh.manifest'])
      cpSync(at(name), at(`profiles/web-1/commands/${name}`));
    writeFileSync(at('profiles/web-1/commands/bare.sh'), '#!/bin/sh\n');
    expect('find', 1, /^(?=[\s\S]*good {5}\S+host\.sh\.manifest\n)(?=[\s\S]*missing {2}\S+bare\.sh\.manifest\n)/);
    expect('openssl genpkey', 0, /^$/);
    expect('webjobctl sign keygen alice2', 0, /\nprofiles\/web-1\/commands\/host\.sh\.manifest\n$/);
    expect(
      'webjobctl sign trust remove trusted.keys site.example/alice',
      0,
      /^good {5}profiles\S+host\.sh\.manifest\n$/,
    );
    expect(
      'webjobctl sign trust remove trusted.keys site.example/bob',
      1,
      /^wrong .*: signed with a weight of 1, but 2 is required\n$/,
    );
    assert.deepEqual(blocks, []);
  });

  it('shows settings that a client accepts', () => {
    writeFileSync(at('webjob.conf'), 'ClientId=web-1\nURLGetURL=http://127.0.0.1:9/\n', { mode: 0o600 });
    const [, name = '', text = ''] = /^```ini (\S+)\n(.*?)^```$/ms.exec(page) ?? [];
    writeFileSync(at(name), text, { mode: 0o600 });
    const { dsvVerifyManifest, dsvRequireManifest, dsvThreshold } = readSettings(at(name));
    assert.deepEqual([dsvVerifyManifest, dsvRequireManifest, dsvThreshold], [true, true, 2]);
  });

  it('signs results with the key that it makes, and seals them to age recipients', async () => {
    for (const [, name = '', text = ''] of page.matchAll(/^```ini (\S+)\n(.*?)^```$/gms))
      writeFileSync(at(name), text, { mode: 0o600 });
    const settings = readSettings(at('sealed.conf'));
    assert.equal(settings.resultKeyFile, at('client1.result.key'));
    assert.match(openResultSigner({ ...settings, clientId: 'client1' }).key, /^client1\+[0-9a-f]{8}$/);
    assert.equal((await openSealer(settings.sealTo)).recipients.length, 2);
  });
});
