// Result keys from client add to client remove: the kit has one half and the site the other, a
// client's own key is imported, and the built programs agree from the job to the verdict.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createPrivateKey, createPublicKey } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { formatVerifierKey, parseVerifierKey } from '../../notes/ed25519.ts';
import { parseResultKeys, type ResultKey } from '../../notes/result-keys.ts';
import { obtainHtpasswd } from '../../scripts/httpd-package.ts';
import { type ClientSite, startClientSite } from '../support/client-site.ts';
import { reportAs, verifyAs } from '../support/evidence-site.ts';
import { type Ground, makeGround, parseLines, runWebjobctl } from '../support/operator.ts';
import { resultKeysOf } from '../support/signed-results.ts';

obtainHtpasswd();
const ground: Ground = makeGround();
const at = (...names: string[]): string => join(ground.root, ...names);
const client = (code: number, ...args: string[]): Promise<string> =>
  ground.run(code, '--config', at('etc/nph-webjob.cfg'), 'client', ...args);
const json = async (...args: string[]): Promise<Record<string, unknown>> => {
  const text = await ground.run(0, '--json', '--config', at('etc/nph-webjob.cfg'), 'client', ...args);
  return parseLines(text)[0] ?? {};
};
const keysOf = (name: string): ResultKey[] =>
  parseResultKeys(readFileSync(at('etc/webjob-result-keys', name), 'utf8'), name);
const mode = (path: string): number => statSync(path).mode & 0o777;
const publicHalf = (path: string, name: string): string =>
  formatVerifierKey(name, createPublicKey(createPrivateKey(readFileSync(path))));

before(() => ground.run(0, 'init', '--prefix', ground.root, '--node', ground.node));
after(() => ground.remove());

describe('webjobctl client add', () => {
  it('makes a result key, the private half for the kit and the public half for the site', async () => {
    const { resultKey } = await json('add', 'client1', '--generate', '--out', at('client1'));
    const path = at('client1/client1.result.key');
    assert.equal(mode(path), 0o600);
    assert.match(readFileSync(at('client1/webjob.conf'), 'utf8'), /^ResultKeyFile=client1\.result\.key$/m);
    const [key, ...more] = keysOf('client1');
    assert.ok(key && more.length === 0 && key.until === undefined);
    assert.ok(Math.abs(key.from.getTime() - Date.now()) < 60_000);
    const verifierKey = publicHalf(path, 'client1');
    assert.deepEqual([formatVerifierKey('client1', key.publicKey), resultKey], [verifierKey, verifierKey]);
    assert.deepEqual([mode(at('etc/webjob-result-keys')), mode(at('etc/webjob-result-keys/client1'))], [0o755, 0o644]);
  });

  it('accepts a key that the client made, in PEM or as a verifier key, and never a private one', async () => {
    const run = (command: string) => execFileSync('sh', ['-ec', command], { cwd: ground.root, stdio: 'pipe' });
    run('openssl genpkey -algorithm ed25519 -out own.key; openssl pkey -in own.key -pubout -out own.pub');
    await client(0, 'add', 'client2', '--generate', '--out', at('client2'), '--result-key', at('own.pub'));
    assert.match(readFileSync(at('client2/webjob.conf'), 'utf8'), /^ResultKeyFile=client2\.result\.key$/m);
    assert.ok(!existsSync(at('client2/client2.result.key')));
    assert.equal(
      formatVerifierKey('client2', keysOf('client2')[0]?.publicKey ?? assert.fail()),
      publicHalf(at('own.key'), 'client2'),
    );
    writeFileSync(at('own.vkey'), `${publicHalf(at('own.key'), 'anything')}\n`);
    await client(0, 'add', 'client3', '--generate', '--out', at('client3'), '--result-key', at('own.vkey'));
    assert.equal(keysOf('client3')[0]?.name, 'client3');
    run('openssl genpkey -algorithm x25519 -out x.key; openssl pkey -in x.key -pubout -out x.pub');
    for (const file of ['own.key', 'x.pub', 'etc/nph-webjob.cfg', 'none'])
      await client(4, 'add', 'client4', '--generate', '--out', at('client4'), '--result-key', at(file));
    assert.deepEqual([existsSync(at('client4')), existsSync(at('etc/webjob-result-keys/client4'))], [false, false]);
  });

  it('makes none on request, and none for C clients', async () => {
    await client(0, 'add', 'plain', '--generate', '--out', at('plain'), '--no-result-key');
    await client(0, 'add', 'c', '--generate', '--out', at('c'), '--c-client');
    await client(2, 'add', 'c2', '--generate', '--out', at('c2'), '--c-client', '--result-key', at('own.pub'));
    for (const name of ['plain', 'c']) {
      assert.doesNotMatch(readFileSync(at(name, 'webjob.conf'), 'utf8'), /ResultKeyFile/);
      assert.ok(!existsSync(at('etc/webjob-result-keys', name)));
      assert.deepEqual(
        readdirSync(at(name)).filter((file) => file.endsWith('.key')),
        [],
      );
    }
  });
});

describe('webjobctl client result-key', () => {
  it('makes another key beside the first, and ends the first on request', async () => {
    await client(4, 'result-key', 'client1', '--out', at('client1'));
    assert.equal(keysOf('client1').length, 1, 'a key is never written over another');
    const next = (await client(0, 'result-key', 'client1', '--out', at('next'))).trim();
    assert.equal(next, at('next/client1.result.key'));
    assert.deepEqual(
      keysOf('client1').map(({ until }) => until),
      [undefined, undefined],
    );
    assert.equal(
      formatVerifierKey('client1', keysOf('client1')[1]?.publicKey ?? assert.fail()),
      publicHalf(next, 'client1'),
    );
    const { key, file, ended } = await json('result-key', 'client1', '--public', at('own.pub'), '--end');
    const [first, second, third] = keysOf('client1');
    assert.deepEqual([file, ended], [null, [first, second].map((one) => `client1+${one?.id}`)]);
    assert.ok(first?.until && second?.until && third && third.until === undefined);
    assert.equal(key, formatVerifierKey('client1', third.publicKey));
    await client(4, 'result-key', 'client1', '--public', at('own.pub'));
    await client(4, 'result-key', 'nobody');
    await client(2, 'result-key', 'client1', '--public', at('own.pub'), '--out', at('x'));
  });

  it('records since when results must be signed', async () => {
    await client(0, 'result-key', 'plain', '--public', at('own.pub'), '--from', '2026-01-02T03:04:05Z');
    assert.equal(keysOf('plain')[0]?.from.toISOString(), '2026-01-02T03:04:05.000Z');
  });

  it('appears in client show, and ends with the client', async () => {
    const shown = await client(0, 'show', 'client1');
    const ids = keysOf('client1').map(({ id }) => id);
    for (const id of ids) assert.match(shown, new RegExp(`^result key   client1\\+${id}  since \\d{4}-`, 'm'));
    assert.equal(shown.match(/ended \d{4}-/g)?.length, 2);
    await client(0, 'remove', 'client1');
    assert.ok(keysOf('client1').every(({ until }) => until !== undefined));
    await client(0, 'add', 'client1', '--generate', '--out', at('again'));
    const keys = keysOf('client1');
    assert.deepEqual([keys.length, keys.filter(({ until }) => until === undefined).length], [4, 1]);
    assert.equal(keys[3]?.id, parseVerifierKey(publicHalf(at('again/client1.result.key'), 'client1')).id);
    const { resultKeys } = await json('show', 'client1');
    assert.deepEqual(
      (resultKeys as { id: string; until: string | null }[]).map(({ id, until }) => [id, until === null]),
      keys.map(({ id, until }) => [id, until === undefined]),
    );
  });
});

describe('a job of a client with a result key', () => {
  let its: ClientSite;
  before(async () => {
    its = await startClientSite();
    copyFileSync(at('again/client1.result.key'), join(its.client.root, 'result.key'));
    its.add('host.sh', '#!/bin/sh\necho "Jid=$WEBJOB_JID"\n');
  });
  after(() => its.close());

  const webjobctl = async (...args: string[]) => {
    const ended = await runWebjobctl(['--config', its.site.propertiesFile, ...args]);
    assert.ok(ended.code === 0 || ended.code === 1, ended.stderr);
    return ended;
  };
  const run = async (more: Record<string, string> = {}): Promise<string> => {
    its.configure(more);
    const earlier = new Set(readdirSync(its.site.incoming));
    const { code, stderr } = await its.client.execute(['host.sh']);
    assert.equal(code, 0, stderr);
    const file = readdirSync(its.site.incoming).find((name) => name.endsWith('.rdy') && !earlier.has(name)) ?? '';
    return /^Jid=(.*)$/m.exec(readFileSync(join(its.site.incoming, file), 'utf8'))?.[1] ?? assert.fail(file);
  };
  const SIGNED = { ResultKeyFile: 'result.key' };

  it('is reported as signed by it, and one without as unsigned, by verify, show and report', async () => {
    const unsigned = await run();
    const jobId = await run(SIGNED);
    const { id } = keysOf('client1')[3] ?? assert.fail();
    const keys = resultKeysOf(its.site);
    const found = await verifyAs([its.site.propertiesFile], jobId);
    assert.deepEqual(
      found.map((line) => line.split(' ')[0]),
      ['signature-key'],
      'the site does not know the key',
    );
    execFileSync('mkdir', [keys]);
    copyFileSync(at('etc/webjob-result-keys/client1'), join(keys, 'client1'));
    // The first job came before the key.
    await new Promise((resolve) => setTimeout(resolve, 1100));
    const now = `${new Date().toISOString().slice(0, 19)}Z`;
    const text = readFileSync(join(keys, 'client1'), 'utf8').trimEnd().split('\n');
    writeFileSync(join(keys, 'client1'), `${text.at(-1)?.replace(/ .*/, '')} ${now}\n`);
    assert.deepEqual(await verifyAs([its.site.propertiesFile]), []);
    const verified = await webjobctl('verify', jobId);
    assert.match(verified.stderr, new RegExp(`: signed by client1\\+${id}\n`));
    assert.match((await webjobctl('verify', unsigned)).stderr, /: not signed\n/);
    assert.match((await webjobctl('verify')).stderr, /^webjobctl: 1 signed by their clients, 1 not signed$/m);
    assert.match((await webjobctl('show', jobId)).stdout, new RegExp(`^Signature: +signed by client1\\+${id}$`, 'm'));
    assert.match((await webjobctl('show', unsigned)).stdout, /^Signature: +not signed$/m);
    const [shown] = parseLines<{ verification: Record<string, unknown> }>(
      (await webjobctl('--json', 'show', jobId)).stdout,
    );
    assert.deepEqual(
      [shown?.verification.signature, shown?.verification.key],
      [`signed by client1+${id}`, `client1+${id}`],
    );
    const pages = [...(await reportAs(its.site)).uploads.values()].map(({ page }) => page);
    assert.equal(
      pages.filter((page) => page.includes(`signed the run record and the output with the key client1+${id}.`)).length,
      1,
    );
    assert.equal(pages.filter((page) => page.includes('The client has not signed the result.')).length, 1);
    const late = await run();
    assert.deepEqual(
      (await verifyAs([its.site.propertiesFile], late)).map((line) => line.split(' ')[0]),
      ['signature-missing'],
    );
  });

  it('is not checked with keys that others could have written', async () => {
    const path = join(resultKeysOf(its.site), 'client1');
    chmodSync(path, 0o666);
    const { code, stderr } = await runWebjobctl(['--config', its.site.propertiesFile, 'verify']);
    assert.deepEqual([code, stderr.includes(`others can write to ${path}`)], [4, true], stderr);
    chmodSync(path, 0o644);
  });

  it('is not checked with unreadable keys', async () => {
    const path = join(resultKeysOf(its.site), 'client1');
    renameSync(path, `${path}.kept`);
    mkdirSync(path);
    const { code, stderr } = await runWebjobctl(['--config', its.site.propertiesFile, 'verify']);
    assert.deepEqual([code, stderr.includes(`${path} cannot be read: EISDIR`)], [4, true], stderr);
    rmdirSync(path);
    renameSync(`${path}.kept`, path);
  });
});
