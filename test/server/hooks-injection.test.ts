// Values that try to break out of a command line or of the name of an upload: from every source of
// a token, in every kind of command, in every kind of quotes. The arguments of a command are
// compared with the encoding of docs/protocol.md, which is computed here independently.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { configure, makeSite } from '../../scripts/site.ts';
import { until } from '../support/cgi-scripts.ts';
import { type CommandSite, formatHead, giveAway, prepareSite, startCommandSite } from '../support/hooks-site.ts';
import { askWorker } from '../support/locker-worker.ts';
import { part } from '../support/thorough.ts';

const PRINTABLE = Array.from({ length: 94 }, (_, index) => String.fromCharCode(0x21 + index)).join('');

/** Commands that create a file in `folder` if a shell executes them; none has a space. */
function attacks(folder: string): string[] {
  const touch = `>${folder}/canary`;
  return [
    ...[`;${touch}`, `&${touch}`, `|${touch}`, `&&${touch}`, `||${touch}`, `$(${touch})`, `\`${touch}\``, touch],
    ...[
      `';${touch};'`,
      `";${touch};"`,
      `'\`${touch}\`'`,
      `"$(${touch})"`,
      `\\';${touch}`,
      `\\";${touch}`,
      `);${touch};(`,
    ],
    ...[
      `$\{IFS}${touch}`,
      `$(touch$\{IFS}${folder}/canary)`,
      `};${touch}`,
      `%cmd;${touch}`,
      `%27;${touch}`,
      `-o${touch}`,
    ],
    ...[
      `../../../../../../../..${folder}/canary`,
      `${folder}/canary`,
      `..%2f..%2fcanary`,
      '%2e%2e/x',
      '~root/x',
      './x',
    ],
  ];
}

const HARMLESS_ODD = [
  '-',
  '--',
  '-rf',
  '--help',
  '...',
  '+x',
  ':',
  '!!',
  '*',
  '?',
  '~',
  '{a,b}',
  '=',
  '%',
  '%%',
  '%jid',
];

/** The encoding of docs/protocol.md, section 4, for the bytes of printable text. */
function encode(value: string, isCommand: boolean): string {
  const encoded = Array.from(value, (c) =>
    /[A-Za-z0-9]/.test(c) || '_.:+-'.includes(c) ? c : `%${Buffer.from(c, 'latin1').toString('hex')}`,
  ).join('');
  if (isCommand && /^\.+$/.test(encoded)) return '%2e'.repeat(encoded.length);
  return isCommand && encoded.startsWith('-') ? `%2d${encoded.slice(1)}` : encoded;
}

/** The arguments that a command line of TOKEN_WORDS passes to its command. */
function expectWords(values: Record<string, string>): string[] {
  const { cid = '', cmd = '', jid = '', ip = '' } = values;
  const once = [cid, cmd, jid, ip].map((value) => encode(value, true));
  const [, , id = ''] = once;
  return [...once, ...once, ...once, `a${id}b`, `${id}${id}`, id];
}

/**
 * Every token bare, in double and in single quotes, beside other text, and as the output of another
 * command.
 */
const TOKEN_WORDS = `%cid %cmd %jid %ip "%cid" "%cmd" "%jid" "%ip" '%cid' '%cmd' '%jid' '%ip' a%jid"b" %jid%jid "$(echo %jid)"`;

const WRITE_WORDS = '#!/bin/sh\nfile=$1; shift\nprintf "%s\\n" "$@" > "$file.next"; mv "$file.next" "$file"\n';

/** All four commands, each of which writes its arguments down. */
function commandSettings(script: string, folder: string): Record<string, string> {
  const entries = ['GetHook', 'PutHook', 'GetTrigger', 'PutTrigger'].flatMap((name) => [
    [`${name}Enable`, 'Y'],
    [`${name}CommandLine`, `${script} ${folder}/${name} ${TOKEN_WORDS}`],
  ]);
  return Object.fromEntries(entries);
}

function readWords(folder: string, name: string): string[] {
  return readFileSync(join(folder, name), 'utf8').trimEnd().split('\n');
}

for (const mpm of part(['event', 'prefork'] as const, 1)) {
  describe(`values in hook command lines under ${mpm}`, async () => {
    const its: CommandSite = await startCommandSite({ mpm });
    after(its.close);
    beforeEach(its.reset);
    const script = its.script('words.sh', WRITE_WORDS);

    /** Uploads under a job id and checks the results. */
    async function attack(jobId: string, clientId = 'client1', fileName = 'host.sh'): Promise<void> {
      its.configure({ ...commandSettings(script, its.scratch), PutNameFormat: 'f/x%jid', RequireMatch: 'N' });
      const { status } = await its.put({ clientId, fileName, jobId, out: 'o' });
      assert.equal(status, 200, jobId);
      await until(() => readdirSync(its.scratch).includes('PutTrigger'), 'the trigger');
      const words = expectWords({ cid: clientId, cmd: fileName, jid: jobId, ip: '127.0.0.1' });
      assert.deepEqual(readWords(its.scratch, 'PutHook'), words);
      assert.deepEqual(readWords(its.scratch, 'PutTrigger'), words);
      assert.deepEqual(readdirSync(its.scratch).sort(), ['PutHook', 'PutTrigger']);
      const files = readdirSync(its.site.incoming, { recursive: true }).map(String).sort();
      const base = `f/x${encode(jobId, false)}`;
      assert.deepEqual(files, ['f', ...['env', 'err', 'out', 'rdy'].map((extension) => `${base}.${extension}`)]);
    }

    it('arrive encoded when they are all printable characters', async () => {
      const half = PRINTABLE.length / 2;
      for (const jobId of [PRINTABLE.slice(0, half), PRINTABLE.slice(half)]) {
        its.reset();
        await attack(jobId);
      }
    });

    // One of them under each MPM is enough to see that httpd changes nothing; the worker below gets
    // them all.
    it('run nothing when they are commands', async () => {
      for (const jobId of attacks(its.scratch).filter((_, index) => index % 5 === 0)) {
        its.reset();
        await attack(jobId);
      }
    });

    it('are never options, at the limits of their patterns', async () => {
      for (const [clientId, fileName] of [
        ['-'.repeat(64), '--help'],
        ['-rf', `-${'x'.repeat(1023)}`],
        ['--', '-'],
      ] as const) {
        its.reset();
        await attack('-', clientId, fileName);
        const { status } = await its.get({ clientId, fileName });
        assert.equal(status, 200);
        await until(() => readdirSync(its.scratch).includes('GetTrigger'), 'the trigger');
        for (const name of ['GetHook', 'GetTrigger']) {
          const words = readWords(its.scratch, name);
          assert.match(words[2] ?? '', /^server_1_\d+_\d+$/);
          assert.deepEqual(words, expectWords({ cid: clientId, cmd: fileName, jid: words[2] ?? '', ip: '127.0.0.1' }));
        }
      }
    });
  });
}

describe('values in hook command lines, whatever the variables', () => {
  const site = makeSite();
  const { scratch, scripts } = prepareSite(site);
  after(site.remove);
  const settingsFile = site.propertiesFile;

  async function ask(method: 'GET' | 'PUT', jobId: string, environment: [string, string][]): Promise<number> {
    const raw = Buffer.from(`${formatHead(method, { jobId, out: method === 'PUT' ? 'o' : '' })}o`, 'latin1');
    // Other tests run the script as a process under each MPM; here only the command line matters.
    return (await askWorker(raw, settingsFile, environment)).status;
  }

  it('run nothing, whatever they are and wherever they come from', async () => {
    const script = join(scripts, 'words.sh');
    writeFileSync(script, WRITE_WORDS, { mode: 0o755 });
    for (const [number, value] of [...attacks(scratch), ...HARMLESS_ODD, 'a\nb;touch x', '\x1b[2J'].entries()) {
      const folder = join(scratch, String(number));
      mkdirSync(folder);
      giveAway(folder);
      configure(site, { ...commandSettings(script, folder), RequireMatch: 'N', PutNameFormat: '%pid/%ip/%jid.' });
      // A job id with control characters is refused, so only the address is hostile there.
      const jobId = /^[\x21-\x7e]+$/.test(value) ? value : 'a';
      const environment: [string, string][] = [
        ['REMOTE_ADDR', `x${value}`],
        ['REMOTE_USER', value],
        ['HTTPS', 'on'],
        ['SSL_CLIENT_VERIFY', 'SUCCESS'],
        ['SSL_CLIENT_S_DN_CN', value],
        ['REMOTE_HOST', value],
        ['SERVER_NAME', value],
        ['HTTP_USER_AGENT', `() { :;}; >${scratch}/canary`],
      ];
      assert.deepEqual([await ask('GET', jobId, environment), await ask('PUT', jobId, environment)], [200, 200], value);
      await until(
        () => readdirSync(folder).filter((name) => !name.endsWith('.next')).length === 4,
        'both hooks and both triggers',
      );
      for (const name of readdirSync(folder)) {
        const words = readWords(folder, name);
        const issued = name.startsWith('Get') ? (words[2] ?? '') : jobId;
        if (name.startsWith('Get')) assert.match(issued, /^server_1_\d+_\d+$/);
        assert.deepEqual(words, expectWords({ cid: 'client1', cmd: 'host.sh', jid: issued, ip: `x${value}` }), name);
      }
    }
    assert.ok(!readdirSync(scratch, { recursive: true }).some((path) => String(path).includes('canary')));
    const names = readdirSync(site.incoming, { recursive: true }).map(String);
    assert.ok(names.length > 0 && names.every((name) => /^\d+(?:\/[A-Za-z0-9_.:+%-]+){0,2}$/.test(name)));
  });
});
