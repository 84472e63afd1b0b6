// SSLUseCertificate: the client authenticates with a key that may have a pass phrase, given in a
// file, in webjob.conf or on the terminal, and never shown.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import type { TLSSocket, TlsOptions } from 'node:tls';
import { encryptKey, issue } from '../support/client-authority.ts';
import { makeClient, until, WEBJOB } from '../support/client-job.ts';
import { type FakeServer, serve, startFake } from '../support/client-server.ts';

const PHRASE = 'pass Phrase;9"x';
const folder = mkdtempSync(join(tmpdir(), 'webjob-client-key-'));
const client = makeClient();
const root = issue(folder, { subject: '/CN=Root', isCa: true });
const identity = issue(folder, { subject: '/CN=client1', issuer: root });
const other = issue(folder, { subject: '/CN=client2', issuer: root });
const cert = join(folder, `${identity.name}.crt`);
const key = join(folder, `${identity.name}.key`);
const encrypted = encryptKey(folder, identity, PHRASE);
const MINE = { SSLUseCertificate: 'Y', SSLPublicCertFile: cert, SSLPrivateKeyFile: key };
let server: FakeServer;
let seen: unknown[] = [];

before(async () => {
  server = await startServer({});
});

async function startServer(more: TlsOptions): Promise<FakeServer> {
  const tls = { ...issue(folder, { subject: '/CN=localhost', issuer: root }), requestCert: true, ca: root.cert };
  const server = await startFake('#!/bin/sh\n', { ...tls, rejectUnauthorized: false, ...more });
  const { put } = server;
  const look =
    (next: FakeServer['get']): FakeServer['get'] =>
    (socket, received) => {
      const peer = socket as TLSSocket;
      seen.push(peer.authorized && peer.getPeerCertificate().subject.CN);
      next(socket, received);
    };
  server.get = look((...call) => serve(program)(...call));
  server.put = look(put);
  return server;
}

/** A server that speaks only TLS 1.0 and accepts any key, in place of the usual one. */
async function withOldServer(check: () => Promise<void>): Promise<void> {
  const usual = server;
  server = await startServer({ minVersion: 'TLSv1', maxVersion: 'TLSv1', ciphers: 'DEFAULT@SECLEVEL=0' });
  try {
    await check();
  } finally {
    await server.close();
    server = usual;
  }
}

let program = '#!/bin/sh\n';
after(async () => {
  await server.close();
  client.remove();
  rmSync(folder, { recursive: true });
});
beforeEach(() => {
  seen = [];
});

function configure(controls: Record<string, string>): void {
  const verify = { SSLVerifyPeerCert: 'Y', SSLBundledCAsFile: join(folder, `${root.name}.crt`) };
  client.configure({ URLGetURL: server.url, URLPutURL: server.url, ...verify, ...controls });
}

/** The server saw client1 in GET and PUT. */
async function assertProven(controls: Record<string, string>): Promise<void> {
  configure(controls);
  assert.deepEqual(await client.execute(['x']), { code: 0, signal: null, stdout: '', stderr: '' });
  assert.deepEqual(seen, ['client1', 'client1']);
}

/** Exit code 2, one error, no prompt, and the pass phrase is not shown. */
async function assertUnusable(controls: Record<string, string>, error: RegExp): Promise<void> {
  configure({ ...MINE, ...controls });
  const { code, stdout, stderr } = await client.execute(['x']);
  assert.match(stderr, error);
  assert.match(stderr, /^webjob: error: [^\n]+\n(?:webjob: hint: [^\n]+\n)?$/);
  assert.deepEqual([code, stdout, seen], [2, '', []]);
  assert.ok(!stderr.includes(PHRASE));
}

function writePhrase(text: string): string {
  const path = join(folder, 'phrase');
  writeFileSync(path, text, { mode: 0o600 });
  return path;
}

describe('SSLUseCertificate', () => {
  it('shows the certificate to a server that asks for one', () => assertProven(MINE));

  it('shows no certificate unless it is Y', async () => {
    configure({ ...MINE, SSLUseCertificate: 'N', SSLPrivateKeyFile: '/nowhere' });
    assert.equal((await client.execute(['x'])).code, 0);
    assert.deepEqual(seen, [false, false]);
  });

  it('reads a pass phrase from webjob.conf, or from a file with or without a newline', async () => {
    await assertProven({ ...MINE, SSLPrivateKeyFile: encrypted, SSLPassPhrase: PHRASE });
    for (const end of ['', '\n', '\r\n']) {
      seen = [];
      await assertProven({ ...MINE, SSLPrivateKeyFile: encrypted, SSLPassPhraseFile: writePhrase(PHRASE + end) });
    }
  });

  it('ignores a pass phrase for a key without one', () => assertProven({ ...MINE, SSLPassPhrase: PHRASE }));

  it('is refused with a wrong pass phrase, and with invalid files', async () => {
    const unusable = /^webjob: error: SSLPrivateKeyFile and SSLPublicCertFile cannot be used: \w[\w ]+\n/;
    await assertUnusable({ SSLPrivateKeyFile: encrypted, SSLPassPhrase: `${PHRASE}x` }, unusable);
    await assertUnusable({ SSLPrivateKeyFile: encrypted, SSLPassPhraseFile: writePhrase(` ${PHRASE}`) }, unusable);
    await assertUnusable({ SSLPrivateKeyFile: cert }, unusable);
    await assertUnusable({ SSLPublicCertFile: key }, unusable);
    for (const control of ['SSLPublicCertFile', 'SSLPrivateKeyFile']) {
      const missing = new RegExp(`^webjob: error: ${control}: /nowhere cannot be read: ENOENT\n$`);
      await assertUnusable({ [control]: '/nowhere' }, missing);
    }
    const noPhrase = /^webjob: error: SSLPassPhraseFile: \/nowhere cannot be read: ENOENT\n$/;
    await assertUnusable({ SSLPrivateKeyFile: encrypted, SSLPassPhraseFile: '/nowhere' }, noPhrase);
  });

  it('is refused by name with the key of another certificate, even one of another type', async () => {
    const mismatch = 'webjob: error: SSLPrivateKeyFile is not the key of the certificate in SSLPublicCertFile';
    const hint = '\nwebjob: hint: name the two files of one pair\n$';
    const otherKey = join(folder, `${other.name}.key`);
    await assertUnusable({ SSLPrivateKeyFile: otherKey }, new RegExp(`^${mismatch}${hint}`));
    const rsa = issue(folder, { subject: '/CN=client1', rsaBits: 2048 });
    const [rsaCert, rsaKey] = ['crt', 'key'].map((kind) => join(folder, `${rsa.name}.${kind}`)) as [string, string];
    for (const [certFile, keyFile, types] of [
      [rsaCert, key, 'of type rsa, and the key of type ec'],
      [cert, rsaKey, 'of type ec, and the key of type rsa'],
    ] as const) {
      const controls = { SSLPublicCertFile: certFile, SSLPrivateKeyFile: keyFile };
      await assertUnusable(controls, new RegExp(`^${mismatch}: that is ${types}${hint}`));
    }
    const encryptedRsa = { SSLPublicCertFile: rsaCert, SSLPrivateKeyFile: encrypted, SSLPassPhrase: PHRASE };
    await assertUnusable(encryptedRsa, new RegExp(`^${mismatch}: that is of type rsa`));
  });

  it('accepts 1024 bits and SHA-1 with SSLMinVersion=TLSv1, and calls them weak otherwise', async () => {
    const weak = issue(folder, { subject: '/CN=client1', issuer: root, rsaBits: 1024, digest: 'sha1' });
    const [weakCert, weakKey] = [join(folder, `${weak.name}.crt`), join(folder, `${weak.name}.key`)];
    const controls = { ...MINE, SSLPublicCertFile: weakCert, SSLPrivateKeyFile: weakKey };
    await assertUnusable(
      controls,
      /^webjob: error: SSLPublicCertFile is refused: its (?:key is too small|signature is too weak)\nwebjob: hint: .*SSLMinVersion=TLSv1/,
    );
    await withOldServer(() => assertProven({ ...controls, SSLMinVersion: 'TLSv1' }));
    seen = [];
    const another = issue(folder, { subject: '/CN=client1', rsaBits: 1024 });
    const mixed = { ...controls, SSLPrivateKeyFile: join(folder, `${another.name}.key`), SSLMinVersion: 'TLSv1' };
    await assertUnusable(mixed, /^webjob: error: SSLPrivateKeyFile is not the key of the certificate/);
  });

  it('is refused at once without a pass phrase and without a terminal', () =>
    assertUnusable(
      { SSLPrivateKeyFile: encrypted },
      /^webjob: error: SSLPrivateKeyFile requires a pass phrase\nwebjob: hint: set SSLPassPhraseFile, or run webjob on a terminal\n$/,
    ));

  it('ends with exit code 3 when the server rejects the certificate', async () => {
    const strict = await startFake('#!/bin/sh\n', {
      ...issue(folder, { subject: '/CN=localhost', issuer: root }),
      requestCert: true,
      rejectUnauthorized: true,
      ca: root.cert,
    });
    try {
      configure({ URLGetURL: strict.url });
      const { code, stderr } = await client.execute(['x']);
      assert.match(stderr, /^webjob: error: GET of x failed: (?:TLS failed: |the connection broke off)[^\n]+\n$/);
      assert.equal(code, 3);
    } finally {
      await strict.close();
    }
  });
});

const hasScript = /util-linux/.test(spawnSync('script', ['--version'], { encoding: 'utf8' }).stdout ?? '');

describe('a pass phrase on the terminal', {
  skip: !hasScript && 'no script(1) of util-linux to make a terminal',
}, () => {
  /**
   * webjob on a terminal of its own; `type` decides what to type after every piece of its output.
   */
  async function onTerminal(
    type: (shown: string) => string | undefined,
    afterMs = 0,
  ): Promise<{ code: number | null; shown: string }> {
    const command = `'${process.execPath}' '${WEBJOB}' -e -f '${client.conf}' x`;
    const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: 'pipe', timeout: 60_000 });
    let shown = '';
    child.stdout.on('data', (chunk: Buffer) => {
      shown += chunk.toString();
      const keys = type(shown);
      if (keys) setTimeout(() => child.stdin.write(keys), afterMs);
    });
    let code: number | null = null;
    let isOver = false;
    child.on('close', (status) => {
      code = status;
      isOver = true;
    });
    await until(() => isOver, 'webjob ends');
    return { code, shown };
  }

  /** Types each answer once, when its question has been shown. */
  function answering(...pairs: [question: string, keys: string][]): (shown: string) => string | undefined {
    return (shown) => {
      const [question, keys] = pairs[0] ?? [];
      if (question === undefined || !shown.includes(question)) return undefined;
      pairs.shift();
      return keys;
    };
  }

  const QUESTION = `Pass phrase for ${encrypted}: `;

  it('is asked once, not shown, and leaves the terminal to the program', async () => {
    program =
      '#!/bin/sh\nstty -a | grep -ow -e "-*echo" -e "-*icanon" >&2\necho ready >&2\nread line\necho "got $line" >&2\n';
    configure({ ...MINE, SSLPrivateKeyFile: encrypted, URLPutURL: '' });
    const { code, shown } = await onTerminal(
      answering([QUESTION, `wrongx\b\x7f\x7f\x7f\x7f\x7f${PHRASE}\r`], ['ready', 'typed\r']),
    );
    assert.equal(code, 0, shown);
    assert.match(shown, /got typed/);
    assert.match(shown.replaceAll('\r', ''), /(?:^icanon\necho\n|^echo\nicanon\n)/m);
    assert.ok(!shown.includes(PHRASE) && !shown.includes('wrong'));
    assert.equal(shown.split(QUESTION).length, 2);
    assert.deepEqual(seen, ['client1']);
    program = '#!/bin/sh\n';
    seen = [];
    configure({ ...MINE, SSLPrivateKeyFile: encrypted });
    const both = await onTerminal(answering([QUESTION, `${PHRASE}\n`]));
    assert.deepEqual([both.code, both.shown.split(QUESTION).length], [0, 2], both.shown);
    assert.deepEqual(seen, ['client1', 'client1']);
  });

  it('may be wrong, or refused with Ctrl-C or Ctrl-D: exit code 2', async () => {
    configure({ ...MINE, SSLPrivateKeyFile: encrypted });
    for (const [keys, message] of [
      ['wrong\r', 'SSLPrivateKeyFile and SSLPublicCertFile cannot be used'],
      ['\x03', 'no pass phrase was given'],
      ['half\x04', 'no pass phrase was given'],
    ] as const) {
      const { code, shown } = await onTerminal(answering([QUESTION, keys]));
      assert.equal(code, 2, shown);
      assert.ok(shown.includes(`webjob: error: ${message}`), shown);
    }
    assert.deepEqual([seen, client.left()], [[], []]);
  });

  it('does not count against GetTimeLimit while the user types', async () => {
    program = '#!/bin/sh\n';
    configure({ ...MINE, SSLPrivateKeyFile: encrypted, GetTimeLimit: '1' });
    const { code, shown } = await onTerminal(answering([QUESTION, `${PHRASE}\r`]), 1500);
    assert.deepEqual([code, seen], [0, ['client1', 'client1']], shown);
  });
});
