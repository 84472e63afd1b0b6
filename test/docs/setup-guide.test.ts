// docs/guide/setup.md and the README as a newcomer follows them: every command, in its order, with
// a real httpd, and the output that the README shows. Paths and the server's address are replaced
// by those of the test.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { obtainHtpasswd, obtainHttpd } from '../../scripts/httpd-package.ts';
import { write } from '../support/deployment-guide.ts';
import { type Apache, formatBasics, startApache } from '../support/deployment-httpd.ts';
import { ask, getHead } from '../support/deployment-wire.ts';
import { makeGround } from '../support/operator.ts';

const MODULES = 'mpm_event cgid alias env auth_basic authn_core authn_file authz_core authz_user reqtimeout';
const project = join(import.meta.dirname, '..', '..');

obtainHtpasswd();
const ground = makeGround();
const at = (...names: string[]): string => join(ground.root, ...names);
let httpd: Apache;
let environment: NodeJS.ProcessEnv;

before(() => {
  const { libraryPath } = obtainHttpd();
  environment = {
    ...process.env,
    ...(libraryPath && { LD_LIBRARY_PATH: libraryPath }),
    PATH: `${placePrograms()}:${process.env.PATH}`,
  };
});
after(() => ground.remove());

/** An httpd without a site, below a directory of its own. */
async function startServer(name: string): Promise<void> {
  const root = at(name, 'httpd');
  const configurationFile = join(root, 'httpd.conf');
  mkdirSync(root, { recursive: true });
  httpd = await startApache({
    serverRoot: root,
    configurationFile,
    errorLog: join(root, 'error.log'),
    portCount: 1,
    configure: (ports) => write(configurationFile, `ServerRoot "${root}"\n${formatBasics(root, ports, MODULES)}`),
  });
}

/** A page with its paths and its server moved below a directory. */
function readMoved(page: string, name: string): string {
  return readFileSync(join(project, page), 'utf8')
    .replaceAll('/srv/webjob', at(name, 'site'))
    .replaceAll('/etc/apache2/apache2.conf', at(name, 'httpd/httpd.conf'))
    .replaceAll('http://localhost', `http://127.0.0.1:${httpd.ports[0]}`);
}

/** The programs by the names on the page; httpd's tools if this machine lacks them. */
function placePrograms(): string {
  const folder = at('programs');
  const { binary } = obtainHttpd();
  mkdirSync(folder);
  const place = (name: string, command: string): void =>
    writeFileSync(join(folder, name), `#!/bin/sh\nexec ${command} "$@"\n`, { mode: 0o755 });
  place('webjobctl', `"${ground.node}" "${project}/bin/webjobctl"`);
  place('webjob', `"${ground.node}" "${project}/dist/webjob"`);
  place('apachectl', `"${binary}"`);
  return folder;
}

describe('docs/guide/setup.md', () => {
  before(() => startServer('guide'));
  after(() => httpd.stop());

  it('leads from nothing to the first job and its result', async () => {
    const page = readMoved('docs/guide/setup.md', 'guide');
    const blocks = [...page.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block = '']) => block);
    const said: string[] = [];
    assert.ok(blocks.length >= 7, `${blocks.length} blocks`);
    let exported = '';
    const run = (block: string) =>
      spawnSync('/bin/sh', ['-ec', exported + block], { cwd: at('guide'), encoding: 'utf8', env: environment });
    for (const block of blocks) {
      // configtest exits with 1 because of this machine's disk or clock.
      const isTest = block.startsWith('webjobctl configtest');
      if (isTest) await untilServed();
      const ended = run(block);
      assert.ok(ended.status === 0 || (isTest && ended.status === 1), `${block}${ended.stdout}${ended.stderr}`);
      if (block.startsWith('export ')) exported += block;
      said.push(ended.stdout + ended.stderr);
      if (isTest) assert.doesNotMatch(ended.stdout, /^error: /m);
    }
    assert.match(said.join(''), /link test: 251 Link Test OK/);
    // The last block shows the job with the name of this machine, which host.sh printed.
    assert.match(said.at(-1) ?? '', new RegExp(`client1[\\s\\S]*\\b${hostname()}\\b`));
    const integrity = at('guide/site/integrity');
    const log = readFileSync(join(integrity, 'logfiles/nph-webjob.log'), 'utf8').trimEnd().split('\n');
    assert.match(log.at(-1) ?? '', / client1 127\.0\.0\.1 PUT client1 host\.sh .* 200 -- Success$/);
    assert.equal(readdirSync(join(integrity, 'incoming')).filter((name) => name.includes('_host.sh.')).length, 4);
    assert.ok(existsSync(at('guide/site/report/index.html')));
    // The steps that the table below leaves for later; this client has no certificate.
    const later = [...page.matchAll(/^\|[^|]*\|(.*)\|$/gm)].flatMap(([, cell = '']) =>
      [...cell.matchAll(/`(webjobctl [^`]+)`/g)].map(([, command = '']) => command),
    );
    const isComplete = (command: string): boolean => !/client renew|ca crl|sign (?:keygen|payload)$/.test(command);
    assert.ok(later.length >= 7, `${later.length} commands`);
    for (const command of later.filter(isComplete)) {
      const { status, stderr } = run(command);
      assert.equal(status, 0, `${command}: ${stderr}`);
    }
  });
});

/**
 * Replaces everything that depends on the run: times, job ids, the name of this machine, widths.
 */
const normalize = (text: string): string =>
  text
    .replace(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g, 'TIME')
    .replace(/server_1_\d+_\d+/g, 'JOB')
    .replace(new RegExp(`^(?:vm|${hostname()})$`, 'm'), 'HOST')
    .replace(/--- out: \d+ B/, '--- out: N B')
    .replace(/ +/g, ' ');

describe('README.md', () => {
  before(() => startServer('readme'));
  after(() => httpd.stop());

  it('shows what a new operator sees', async () => {
    const section =
      readMoved('README.md', 'readme')
        .split('\n## ')
        .find((text) => text.startsWith('Run a site')) ?? '';
    const [, transcript = ''] = /^```\n(.*?)^```$/ms.exec(section) ?? [];
    const steps = transcript.split(/^# /m).slice(1);
    assert.ok(steps.length >= 8, `${steps.length} commands`);
    let [exported, job] = ['', ''];
    for (const step of steps) {
      const [line = '', ...shown] = step.trimEnd().split('\n');
      const command = line.replace(/server_1_\d+_\d+/, job);
      if (command.startsWith('webjob ')) await untilServed();
      const options = { cwd: at('readme'), encoding: 'utf8', env: environment } as const;
      const { status, stdout, stderr } = spawnSync('/bin/sh', ['-ec', exported + command], options);
      assert.equal(status, 0, `${command}: ${stderr}`);
      if (command.startsWith('export ')) exported += `${command}\n`;
      job = /server_1_\d+_\d+/.exec(stdout)?.[0] ?? job;
      // Dots stand for omitted output.
      let rest = normalize(stdout);
      for (const part of normalize(shown.join('\n')).split(/^\.\.\.\n/m)) {
        assert.ok(rest.includes(part.trimEnd()), `${command} prints\n${stdout}and not\n${part}`);
        rest = rest.slice(rest.indexOf(part.trimEnd()));
      }
    }
    assert.ok(existsSync(at('readme/site/report/index.html')));
  });
});

/** A graceful restart takes effect a moment after the command. */
async function untilServed(): Promise<void> {
  let status = 0;
  for (const deadline = Date.now() + 60_000; Date.now() < deadline && status !== 401; await sleep(50))
    status = (await ask(httpd.ports[0] ?? 0, getHead({ headers: ['Connection: close'] }))).status;
}
