// Debian's age and the built programs in both directions: age opens what the client sealed, and
// webjobctl opens what age sealed.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { openResult } from '../../notes/result.ts';
import { type ClientSite, startClientSite } from '../support/client-site.ts';
import { runWebjobctl } from '../support/operator.ts';
import { WEBJOBCTL } from '../support/program-runs.ts';
import { NO_AGE } from '../support/sealed-streams.ts';
import { makeSigner } from '../support/signed-programs.ts';
import { keyLine, resultKeysOf, writeResultKeys } from '../support/signed-results.ts';
import { many, part } from '../support/thorough.ts';

describe("Debian's age", { skip: NO_AGE }, () => {
  let its: ClientSite;
  let recipient: string;
  const at = (name: string): string => join(its.client.root, name);
  const bash = (script: string): string =>
    execFileSync('bash', ['-o', 'pipefail', '-ec', script], { cwd: its.client.root, encoding: 'utf8' });
  const webjobctl = async (...args: string[]) => {
    const ended = await runWebjobctl(['--config', its.site.propertiesFile, ...args]);
    return [ended.code, ended.stderr];
  };

  before(async () => {
    its = await startClientSite();
    const signer = makeSigner('client1');
    writeFileSync(at('result.key'), signer.privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
    writeResultKeys(resultKeysOf(its.site), 'client1', [keyLine(signer)]);
    bash('umask 077; age-keygen -o identity.txt 2>/dev/null');
    recipient = bash('age-keygen -y identity.txt').trim();
    its.configure({ ResultKeyFile: 'result.key', SealTo: recipient });
  });
  after(() => its.close());

  for (const size of [...part([0, 1, 65_535, 65_536, 65_537], 3), many(200_000_000, 20_000_000)])
    it(`opens ${size} bytes that the client sealed, and seals what webjob opens`, async (context) => {
      const earlier = new Set(readdirSync(its.site.incoming));
      const make = `head -c ${size} /dev/zero | openssl enc -aes-128-ctr -K ${'0'.repeat(32)} -iv ${'0'.repeat(32)}`;
      its.add('host.sh', `#!/bin/sh\n${make}\n`);
      const running = its.client.start(['host.sh']);
      let peak = 0;
      const watch = setInterval(() => {
        peak = Math.max(peak, readPeak(running.child.pid));
      }, 20);
      const { code, stderr } = await running.ended;
      clearInterval(watch);
      assert.equal(code, 0, stderr);
      const wanted = bash(`${make} | sha256sum`).slice(0, 64);
      const names = readdirSync(its.site.incoming).filter((name) => !earlier.has(name));
      const file = (extension: string): string =>
        join(its.site.incoming, names.find((name) => name.endsWith(extension)) ?? assert.fail(extension));
      const { sealing, record } = openResult(readFileSync(file('.env'))) ?? assert.fail('not signed');
      assert.deepEqual([sealing?.plain.out.bytes, sealing?.plain.out.sha256], [size, wanted]);
      assert.equal(bash(`age -d -i identity.txt '${file('.out')}' | sha256sum`).slice(0, 64), wanted);
      assert.deepEqual((await webjobctl('verify', record.fields.Jid))[0], 0);
      context.diagnostic(`${size} bytes sealed in ${Math.round(peak / 1e6)} MB of memory`);
      if (size > 1_000_000) assert.ok(peak > 0 && peak < 250_000_000, `${peak} bytes of memory`);
      // The examiner's age seals, and webjobctl opens.
      bash(`${make} | age -r ${recipient} > by-age`);
      copyFileSync(at('by-age'), file('.out'));
      const show = `"$0" "$1" --config '${its.site.propertiesFile}' show ${record.fields.Jid} --out --identity identity.txt`;
      const opened = execFileSync(
        'bash',
        ['-o', 'pipefail', '-ec', `${show} | sha256sum`, process.execPath, WEBJOBCTL],
        {
          cwd: its.client.root,
          encoding: 'utf8',
        },
      );
      assert.equal(opened.slice(0, 64), wanted);
    });
});

function readPeak(pid: number | undefined): number {
  try {
    return Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}
