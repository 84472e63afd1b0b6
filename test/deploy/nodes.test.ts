// Client and CGI on the oldest supported Node and on the one the project is built with; installed
// as a single file in an empty directory, and as a link to a launcher.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { startHttpd } from '../../scripts/httpd.ts';
import { obtainNode } from '../../scripts/node-release.ts';
import { makeSite, writeClientConf } from '../../scripts/site.ts';

const NODES = { 'Node 20.19.0': obtainNode('20.19.0'), "the project's Node": process.execPath };
const project = join(import.meta.dirname, '..', '..');

for (const [name, node] of Object.entries(NODES)) {
  const version = execFileSync(node, ['--version'], { encoding: 'utf8' }).trim();
  for (const linkLauncher of [false, true]) {
    describe(`${name} (${version}), ${linkLauncher ? 'launchers through links' : 'single files'}`, async () => {
      const site = makeSite({ linkLauncher });
      const server = await startHttpd({ site, mpm: 'event', node });
      after(async () => {
        await server.stop();
        site.remove();
      });

      it('gets, runs and puts', () => {
        const folder = join(site.root, 'alone');
        mkdirSync(folder);
        const client = join(folder, 'webjob');
        if (linkLauncher) symlinkSync(join(project, 'bin', 'webjob'), client);
        else copyFileSync(join(project, 'dist', 'webjob'), client);
        const args = [client, '--execute', '--file', writeClientConf(site, server.url), 'host.sh'];
        const run = spawnSync(node, args, { encoding: 'utf8', timeout: 60_000 });
        assert.deepEqual([run.status, run.stdout, run.stderr], [0, '', '']);
        assert.equal(readFileSync(site.logFile, 'utf8').match(/ 200 -- Success\n/g)?.length, 2);
        assert.equal(readdirSync(site.incoming).filter((file) => file.endsWith('.rdy')).length, 1);
      });

      it('leaves the error log empty, and no files beside the script', () => {
        assert.deepEqual(readdirSync(site.cgiDirectory).sort(), ['.htaccess', 'nph-webjob.cgi']);
        // httpd logs a script's stderr, and there Node would warn of whatever it dislikes.
        assert.equal(readFileSync(server.errorLog, 'utf8').match(/Warning|AH01215/), null);
      });

      it('is the Node that scripts of this httpd find', async () => {
        const script = `#!/usr/bin/env node\nconsole.log('HTTP/1.1 200 OK\\r\\n\\r\\n' + process.version)\n`;
        writeFileSync(join(site.cgiDirectory, 'nph-version.cgi'), script, { mode: 0o755 });
        const headers = { Authorization: `Basic ${Buffer.from('client1:foo').toString('base64')}` };
        const answer = await fetch(`${server.url}/webjob/nph-version.cgi`, { headers });
        assert.equal(await answer.text(), `${version}\n`);
      });
    });
  }
}

it('a launcher reports an unbuilt program, and answers in HTTP', () => {
  const site = makeSite();
  try {
    const launcher = join(site.root, 'nph-webjob');
    copyFileSync(join(project, 'bin', 'nph-webjob'), launcher);
    const run = spawnSync(process.execPath, [launcher], { encoding: 'utf8', input: 'body', timeout: 60_000 });
    assert.match(
      run.stdout,
      /^HTTP\/1\.1 550 Internal Server Initialization Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n$/,
    );
    assert.match(run.stderr, /dist\/nph-webjob\.cgi is missing; run: npm run setup && npm run build/);
  } finally {
    site.remove();
  }
});
