// docs/guide/setup.md as a newcomer follows it: every command of the page, in its order, in one shell, with a real httpd. Paths and the
// server's address are moved to where the test may be.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { obtainHtpasswd, obtainHttpd } from '../scripts/httpd-package.ts';
import { write } from './deployment-guide.ts';
import { type Apache, formatBasics, startApache } from './deployment-httpd.ts';
import { ask, getHead } from './deployment-wire.ts';
import { makeGround } from './operator.ts';

const MODULES = 'mpm_event cgid alias env auth_basic authn_core authn_file authz_core authz_user reqtimeout';
const project = join(import.meta.dirname, '..');

obtainHtpasswd();
const ground = makeGround();
const at = (...names: string[]): string => join(ground.root, ...names);
let httpd: Apache;

before(async () => {
  mkdirSync(at('httpd'));
  httpd = await startApache({
    ...{
      serverRoot: at('httpd'),
      configurationFile: at('httpd/httpd.conf'),
      errorLog: at('httpd/error.log'),
      portCount: 1,
    },
    configure: (ports) =>
      write(at('httpd/httpd.conf'), `ServerRoot "${at('httpd')}"\n${formatBasics(at('httpd'), ports, MODULES)}`),
  });
});
after(async () => {
  await httpd?.stop();
  ground.remove();
});

/** The commands of the page, block by block. */
function readBlocks(): string[] {
  const page = readFileSync(join(project, 'docs/guide/setup.md'), 'utf8')
    .replaceAll('/srv/webjob', at('site'))
    .replaceAll('/etc/apache2/apache2.conf', at('httpd/httpd.conf'))
    .replaceAll('http://localhost', `http://127.0.0.1:${httpd.ports[0]}`);
  return [...page.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block = '']) => block);
}

/** The programs by the names that the page calls them; httpd's tools as far as this machine has none. */
function placePrograms(): string {
  const folder = at('programs');
  const { binary } = obtainHttpd();
  mkdirSync(folder);
  const place = (name: string, command: string): void =>
    writeFileSync(join(folder, name), `#!/bin/sh\nexec ${command} "$@"\n`, { mode: 0o755 });
  place('webjobctl', `"${ground.node}" "${project}/dist/webjobctl"`);
  place('webjob', `"${ground.node}" "${project}/dist/webjob"`);
  place('apachectl', `"${binary}"`);
  place('a2enmod', 'echo');
  return folder;
}

describe('docs/guide/setup.md', () => {
  it('leads from nothing to the first job, and what came of it', async () => {
    const { libraryPath } = obtainHttpd();
    const env = {
      ...process.env,
      ...(libraryPath && { LD_LIBRARY_PATH: libraryPath }),
      PATH: `${placePrograms()}:${process.env.PATH}`,
    };
    const said: string[] = [];
    const blocks = readBlocks();
    assert.ok(blocks.length >= 7, `${blocks.length} blocks`);
    let exported = '';
    for (const block of blocks) {
      // configtest exits with 1 for a disk or a clock that is this machine's own.
      const isTest = block.startsWith('webjobctl configtest');
      if (isTest) await untilServed();
      const ended = spawnSync('/bin/sh', ['-ec', exported + block], { cwd: ground.root, encoding: 'utf8', env });
      assert.ok(ended.status === 0 || (isTest && ended.status === 1), `${block}${ended.stdout}${ended.stderr}`);
      if (block.startsWith('export ')) exported += block;
      said.push(ended.stdout + ended.stderr);
      if (isTest) assert.doesNotMatch(ended.stdout, /^error: /m);
    }
    assert.match(said.join(''), /link test: 251 Link Test OK/);
    // The last block shows the job with the name of this machine, which host.sh wrote.
    assert.match(said.at(-1) ?? '', new RegExp(`client1[\\s\\S]*\\b${hostname()}\\b`));
    const log = readFileSync(at('site/integrity/logfiles/nph-webjob.log'), 'utf8').trimEnd().split('\n');
    assert.match(log.at(-1) ?? '', / client1 127\.0\.0\.1 PUT client1 host\.sh .* 200 -- Success$/);
    assert.equal(readdirSync(at('site/integrity/incoming')).filter((name) => name.includes('_host.sh.')).length, 4);
    assert.ok(existsSync(at('site/report/index.html')));
  });
});

/** A graceful restart takes effect a moment after the command. */
async function untilServed(): Promise<void> {
  let status = 0;
  for (const deadline = Date.now() + 30_000; Date.now() < deadline && status !== 401; await sleep(50))
    status = (await ask(httpd.ports[0] ?? 0, getHead({ headers: ['Connection: close'] }))).status;
}
