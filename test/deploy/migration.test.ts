// docs/guide/migration.md: its commands are run as they are printed, at a site of the article that
// another script serves; what it says of settings and of the log is compared with the sources.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  copyFileSync,
  globSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CONTROLS } from '../../cgi/setting-table.ts';
import { addUser, makeSite, type Site } from '../../scripts/site.ts';
import { type Run, readGuide, runCommands, stageCheckout, write } from '../support/deployment-guide.ts';
import { formatBasics, makeRoot, startApache } from '../support/deployment-httpd.ts';
import { ask, getHead, putHead } from '../support/deployment-wire.ts';
import { reloadHttpd, waitFor } from '../support/wait.ts';

const PAGE = 'docs/guide/migration.md';
const PATHS = ['/usr/local/apache', '/var/integrity', '/etc/logrotate.d'];
const MODULES = 'mpm_event cgid alias env auth_basic authn_core authn_file authz_core authz_user reqtimeout';
const project = join(import.meta.dirname, '..', '..');
/** Stands for the site's old script, and can be distinguished from ours. */
const OLD_SCRIPT = "#!/bin/sh\ncat > /dev/null\nprintf 'HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\nperl'\n";

describe('docs/guide/migration.md', () => {
  const page = readFileSync(join(project, PAGE), 'utf8');
  const sectionOf = (heading: string): string =>
    page.split(/^## /m).find((section) => section.startsWith(heading)) ?? '';

  it('names every setting once, and no unknown one', () => {
    const table = sectionOf('What is the same').split('Setting by setting')[1] ?? '';
    const rows = [...table.matchAll(/^\| (`.*?) \|/gm)].map(([, cell = '']) => cell);
    const named = rows.flatMap((cell) => [...cell.matchAll(/`(\w+)`/g)].map(([, key]) => key));
    assert.deepEqual(named.toSorted(), CONTROLS.map(({ key }) => key).toSorted());
  });

  it('quotes what the sources say', () => {
    const files = globSync('cgi/**/*.ts', { cwd: project }).map((file) => readFileSync(join(project, file), 'utf8'));
    const sources = files.join('\n');
    const quotes = [...sectionOf('What is stricter').matchAll(/`([a-z]+(?: [a-z]+)+)`/g)].map(
      ([, quote = '']) => quote,
    );
    assert.ok(quotes.length >= 4);
    for (const quote of quotes) assert.ok(sources.includes(quote), quote);
  });
});

describe('a site that migrates from another script and back', async () => {
  const root = makeRoot();
  const serverRoot = join(root, 'usr/local/apache');
  const base = join(root, 'var/integrity');
  const logFile = join(base, 'logfiles/nph-webjob.log');
  const settingsFile = join(serverRoot, 'etc/nph-webjob.cfg');
  const guide = readGuide(PAGE, root, PATHS);
  const run: Run = {
    checkout: stageCheckout(root, PATHS),
    serverRoot,
    configurationFile: join(serverRoot, 'conf/httpd.conf'),
  };
  const userFile = layOut();
  const httpd = await startApache({
    serverRoot,
    configurationFile: run.configurationFile,
    errorLog: join(serverRoot, 'logs/error.log'),
    portCount: 2,
    configure: (ports) => configure(ports),
  });
  const [port = 0, newPort = 0] = httpd.ports;
  after(async () => {
    await httpd.stop();
    rmSync(root, { recursive: true, force: true });
  });

  /** The article's site with the article's paths; returns its user file. */
  function layOut(): string {
    const site = makeSite();
    mkdirSync(join(root, 'var'));
    mkdirSync(join(serverRoot, 'logs'), { recursive: true });
    execFileSync('cp', ['-a', site.base, base]);
    execFileSync('cp', ['-a', site.cgiDirectory, join(serverRoot, 'webjob')]);
    write(join(serverRoot, 'webjob/nph-webjob.cgi'), OLD_SCRIPT);
    write(settingsFile, `BaseDirectory=${base}`);
    const users = join(serverRoot, 'etc/webjob.htpasswd');
    copyFileSync(site.userFile, users);
    writeFileSync(
      join(serverRoot, 'webjob/.htaccess'),
      `AuthType Basic\nAuthName x\nAuthUserFile ${users}\nRequire valid-user\n`,
    );
    site.remove();
    return users;
  }

  /** The lines of the article's httpd.conf for the script, as far as Apache 2.4 accepts them. */
  function configure(ports: number[], more = ''): void {
    const lines = `
ScriptAlias /webjob/ "${serverRoot}/webjob/"
<Directory "${serverRoot}/webjob">
  AllowOverride AuthConfig
  SetEnv WEBJOB_PROPERTIES_FILE "${settingsFile}"
</Directory>
`;
    write(run.configurationFile, formatBasics(join(serverRoot, 'logs'), ports, MODULES) + lines + more);
  }

  const commands = (heading: string): string[] => guide.blocks('sh', heading);
  const logged = (): string[] => readFileSync(logFile, 'utf8').split('\n').filter(Boolean);
  const whoServes = async (): Promise<string> =>
    (await ask(port, getHead())).body.toString() === 'perl' ? 'old' : 'ours';

  it('finds the links that would be refused', () => {
    const profile = join(base, 'profiles/client1');
    write(join(root, 'elsewhere/tool'), 'x');
    symlinkSync(join(root, 'elsewhere/tool'), join(profile, 'outside'));
    symlinkSync('host.sh', join(profile, 'inside'));
    assert.equal(runCommands(commands('What is stricter'), run), `${root}/elsewhere/tool\n`);
  });

  it('checks its settings beforehand', () => {
    const look = commands('Looking before switching');
    assert.match(runCommands(look, run), /^HTTP\/1\.1 452 Username Undefined\r$/m);
    const settings = readFileSync(settingsFile);
    appendFileSync(settingsFile, '\nRequireUser=maybe\n');
    assert.match(runCommands(look, run), /^HTTP\/1\.1 550 /m);
    assert.match(logged().at(-1) ?? '', / 550 -- .*RequireUser in line 2/);
    writeFileSync(settingsFile, settings);
  });

  it('runs both scripts side by side', async () => {
    runCommands(commands('Both side by side'), run);
    const [lines = ''] = guide.blocks('apache', 'Both side by side');
    const moved = lines.replace('Listen 8080', `Listen 127.0.0.1:${newPort}`).replace('*:8080', `127.0.0.1:${newPort}`);
    configure([port], moved);
    await reloadHttpd(httpd.pid, () => assert.equal(httpd.control('-k', 'graceful').code, 0));
    let jobId = '';
    for (const deadline = Date.now() + 60_000; jobId === '' && Date.now() < deadline; await sleep(20)) {
      jobId = (await ask(newPort, getHead())).headers.get('job-id') ?? '';
    }
    assert.match(jobId, /^server_new_/);
    assert.equal(await whoServes(), 'old');
    const put = putHead(2, { headers: ['Job-Id: server_1_1085355126_00723'] });
    assert.equal((await ask(newPort, `${put}ok`)).status, 200);
    assert.match(logged().at(-1) ?? '', / server_1_1085355126_00723 client1 127\.0\.0\.1 PUT .* 200 -- Success$/);
  });

  it('switches between two requests and loses none', async () => {
    const served: string[] = [];
    let isDone = false;
    const client = async (): Promise<void> => {
      while (!isDone) served.push(await whoServes());
    };
    let failure: string | undefined;
    const note = (error: unknown): void => {
      failure ??= `a request: ${error}`;
    };
    const clients = [client().catch(note), client().catch(note)];
    const untilServed = (count: number): Promise<void> =>
      waitFor(
        `${count} answers`,
        () => served.length >= count,
        () => failure,
      );
    try {
      await untilServed(4);
      runCommands(commands('Switching').slice(0, 1), run);
      await waitFor(
        'the new script',
        () => served.at(-1) === 'ours',
        () => failure,
      );
      await untilServed(served.length + 8);
    } finally {
      isDone = true;
    }
    await Promise.all(clients);
    assert.equal(failure, undefined);
    assert.deepEqual([served[0], served.at(-1)], ['old', 'ours']);
  });

  it('shows the requests that are refused', async () => {
    addUser({ userFile } as Site, 'client2', 'bar');
    const stranger = getHead({ clientId: 'client2', password: 'bar' }).replace('CLIENTID=client2', 'CLIENTID=client1');
    assert.equal((await ask(port, stranger)).status, 453);
    const said = runCommands(commands('Switching').slice(1), run).trimEnd().split('\n');
    assert.deepEqual(
      said.map((line) => line.replace(/^.* (\d+) -- .*$/, '$1')),
      ['452', '550', '453'],
    );
  });

  it('goes back to the other script', async () => {
    runCommands(commands('Going back'), run);
    for (const deadline = Date.now() + 60_000; Date.now() < deadline; await sleep(20))
      if ((await whoServes()) === 'old') break;
    assert.equal(await whoServes(), 'old');
    assert.deepEqual(readdirSync(join(serverRoot, 'webjob')).sort(), ['.htaccess', 'nph-webjob.cgi']);
  });
});
