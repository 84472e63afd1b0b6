// docs/cookbook: every recipe as a reader follows it, at a site made by webjobctl init under a real
// httpd, with real clients. Paths on the pages are moved to where the test may write; the output on
// a page must occur in the output of its commands, in that order.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { obtainHtpasswd, obtainHttpd } from '../../scripts/httpd-package.ts';
import { findWebUser } from '../../scripts/web-user.ts';
import { write } from '../support/deployment-guide.ts';
import { type Apache, formatBasics, startApache } from '../support/deployment-httpd.ts';
import { ask, getHead } from '../support/deployment-wire.ts';
import { hasProgram, makeGround } from '../support/operator.ts';

const MODULES = 'mpm_event cgid alias env auth_basic authn_core authn_file authz_core authz_user reqtimeout';
const project = join(import.meta.dirname, '..', '..');
const cookbook = join(project, 'docs/cookbook');
const isRoot = process.getuid?.() === 0;
const webUser = findWebUser();
const POSTGRES = existsSync('/usr/lib/postgresql')
  ? readdirSync('/usr/lib/postgresql').map((version) => `/usr/lib/postgresql/${version}/bin`)[0]
  : undefined;

interface Block {
  /** The text after the fence: `sh server 1`, `sh client web-1 web-2`, `text`. */
  words: string[];
  text: string;
}

obtainHtpasswd();
const ground = makeGround();
const at = (...names: string[]): string => join(ground.root, ...names);
const CLIENTS = ['client1', 'web-1', 'web-2', 'web-3'];
let httpd: Apache;
let environment: NodeJS.ProcessEnv;

before(async () => {
  const { libraryPath } = obtainHttpd();
  environment = {
    ...process.env,
    ...(libraryPath && { LD_LIBRARY_PATH: libraryPath }),
    PATH: `${placePrograms()}:${process.env.PATH}:/usr/sbin:/sbin`,
    WEBJOB_PROPERTIES_FILE: at('site/etc/nph-webjob.cfg'),
    WEB_USER: webUser?.name ?? String(process.getuid?.()),
  };
  for (const name of ['operator', 'tmp', 'mnt', 'host/bin']) mkdirSync(at(name), { recursive: true });
  const configurationFile = at('httpd/httpd.conf');
  httpd = await startApache({
    serverRoot: at('httpd'),
    configurationFile,
    errorLog: at('httpd/error.log'),
    portCount: 1,
    configure: (ports) =>
      write(configurationFile, `ServerRoot "${at('httpd')}"\n${formatBasics(at('httpd'), ports, MODULES)}`),
  });
  const url = `http://127.0.0.1:${httpd.ports[0]}`;
  must(`webjobctl init --prefix ${at('site')} --httpd-conf ${configurationFile} --apply
echo BatchCommand=batch >> ${at('site/etc/nph-webjob.cfg')}`);
  for (const name of CLIENTS) {
    const folder = at('hosts', name);
    must(`webjobctl client add ${name} --generate --url ${url} --out ${folder}`);
    must(
      `sed -i '/^TempDirectory=/d' ${folder}/webjob.conf; echo 'TempDirectory=${at('tmp')}' >> ${folder}/webjob.conf`,
    );
  }
  write(at('site/integrity/profiles/client1/commands/host.sh'), '#!/bin/sh\nhostname\n');
  await untilServed();
});
after(async () => {
  await httpd?.stop();
  spawnSync('umount', [at('mnt')]);
  ground.remove();
});

function placePrograms(): string {
  const folder = at('programs');
  mkdirSync(folder);
  const place = (name: string, command: string): void =>
    writeFileSync(join(folder, name), `#!/bin/sh\nexec ${command} "$@"\n`, { mode: 0o755 });
  for (const name of ['webjobctl', 'webjob', 'pad-make-script'])
    place(name, `"${ground.node}" "${project}/dist/${name}"`);
  place('apachectl', `"${obtainHttpd().binary}"`);
  return folder;
}

/** A graceful restart takes effect a moment after the command. */
async function untilServed(): Promise<void> {
  let status = 0;
  for (const deadline = Date.now() + 60_000; Date.now() < deadline && status !== 401; await sleep(50))
    status = (await ask(httpd.ports[0] ?? 0, getHead({ headers: ['Connection: close'] }))).status;
}

function run(script: string, folder: string): { status: number | null; text: string } {
  const options = { cwd: folder, env: environment, encoding: 'utf8', timeout: 120_000 } as const;
  const { status, stdout, stderr } = spawnSync('/bin/sh', ['-ec', script], options);
  return { status, text: stdout + stderr };
}

function must(script: string): string {
  const { status, text } = run(script, at('operator'));
  assert.equal(status, 0, `${script}: ${text}`);
  return text;
}

function readBlocks(page: string): Block[] {
  const text = readFileSync(join(cookbook, page), 'utf8');
  return [...text.matchAll(/^```([a-z]+[^\n]*)\n(.*?)^```$/gms)].map(([, words = '', block = '']) => {
    return { words: words.split(' '), text: block };
  });
}

/**
 * The paths of a page, where the test has them. Those of a client are relative, because several
 * clients are on this machine.
 */
function move(text: string): string {
  const moves: [string, string][] = [
    ['/srv/webjob', at('site')],
    ['/etc/webjob/webjob.conf', 'webjob.conf'],
    ['/etc/sysctl.d', 'sysctl.d'],
    ['/var/log/auth.log', 'auth.log'],
    ['/etc/ssh/', ''],
    ['/var/tmp', at('tmp')],
    ['/usr/local/bin', at('host/bin')],
    ['/mnt/suspect', at('mnt')],
    ['/dev/sdb1', at('disk.img')],
    ['dpkg -i', `dpkg --root=${at('dpkg')} --force-not-root --force-script-chrootless -i`],
    ['apachectl graceful', `apachectl -f ${at('httpd/httpd.conf')} -k graceful`],
  ];
  return moves.reduce((moved, [from, to]) => moved.replaceAll(from, to), text);
}

const SKIPPED: Record<string, string | false> = {
  root: !isRoot && 'needs root',
  postgres: POSTGRES === undefined && 'PostgreSQL is missing',
};

/** Runs the commands of a page; returns all of their output. */
function follow(page: string): string {
  let printed = '';
  for (const { words, text } of readBlocks(page)) {
    const [language = '', kind = '', ...more] = words;
    if (language !== 'sh') continue;
    if (kind.startsWith('/')) {
      write(move(kind), text);
      chmodSync(move(kind), 0o644);
      continue;
    }
    if (more.some((word) => SKIPPED[word])) continue;
    const code = Number(more.find((word) => /^\d$/.test(word)) ?? 0);
    const clients = more.filter((word) => CLIENTS.includes(word));
    const folders: Record<string, string[]> = {
      server: [at('operator')],
      client: (clients.length > 0 ? clients : ['client1']).map((name) => at('hosts', name)),
      attack: [at('operator')],
      recipient: [at('operator/case0815')],
    };
    for (const folder of folders[kind] ?? assert.fail(`${page}: ${words.join(' ')} is of no kind`)) {
      const ended = run(move(text), folder);
      assert.equal(ended.status, code, `${page}: ${text}: ${ended.text}`);
      printed += ended.text;
    }
  }
  return printed;
}

/**
 * A line on a page as a pattern: `…` is any text, digits match any digits, spaces any number of
 * them.
 */
function patternOf(line: string): RegExp {
  const escaped = move(line)
    .trim()
    .replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
  const source = escaped.replaceAll('…', '.*').replace(/\d+/g, '\\d+').replace(/\s+/g, '\\s+');
  return new RegExp(source);
}

function checkShown(page: string, printed: string): void {
  const shown = readBlocks(page).filter(({ words }) => words[0] === 'text' && !words.some((word) => SKIPPED[word]));
  for (const { text } of shown) {
    let rest = printed.split('\n');
    for (const line of text.split('\n').filter((one) => one.trim() !== '' && one !== '…')) {
      const place = rest.findIndex((one) => patternOf(line).test(one));
      assert.ok(place >= 0, `${page} shows "${line}", which is not in\n${rest.join('\n')}\nof\n${printed}`);
      rest = rest.slice(place + 1);
    }
  }
}

const PREPARED: Record<string, () => void> = {
  'baseline.md': () => write(at('host/bin/backup'), 'echo backup\n'),
  'disk.md': () => {
    if (!isRoot) return;
    write(at('suspect/home/mallory/secret.txt'), 'secret\n');
    must(`mkfs.ext4 -q -d ${at('suspect')} ${at('disk.img')} 4M`);
  },
  'packages.md': () => {
    write(
      at('hello/DEBIAN/control'),
      'Package: hello\nVersion: 1.0\nArchitecture: all\nMaintainer: a test\nDescription: hello\n',
    );
    must(`dpkg-deb --build ${at('hello')} hello_1.0_all.deb
mkdir -p ${at('dpkg/var/lib/dpkg/info')} ${at('dpkg/var/lib/dpkg/updates')} && touch ${at('dpkg/var/lib/dpkg/status')}`);
  },
  'logs.md': () => {
    for (const name of CLIENTS)
      write(at('hosts', name, 'auth.log'), 'Failed password for root from 192.0.2.66 port 4242 ssh2\n');
  },
  'golden.md': () => {
    for (const name of CLIENTS)
      write(at('hosts', name, 'sysctl.d/10-network.conf'), `net.ipv4.ip_forward=${name === 'web-3' ? 1 : 0}\n`);
  },
  'database.md': startPostgres,
  'perl.md': () => {
    // As the Perl script leaves a site: no custody record, no limits, and another script.
    const base = at('site/integrity');
    for (const name of ['limits', 'dynamic', 'config']) rmSync(join(base, name), { recursive: true });
    for (const name of readdirSync(join(base, 'logfiles')).filter((one) => one.includes('custody')))
      rmSync(join(base, 'logfiles', name), { recursive: true });
    copyFileSync(at('site/webjob/nph-webjob.cgi'), at('operator/nph-webjob.cgi'));
    writeFileSync(at('site/webjob/nph-webjob.cgi'), '#!/usr/bin/perl\n');
  },
};

/** A database server of the test's own, on a socket. It does not run as root. */
function startPostgres(): void {
  if (POSTGRES === undefined) return;
  const folder = at('postgres');
  mkdirSync(folder);
  const prefix = isRoot ? `runuser -u ${webUser?.name} -- ` : '';
  if (isRoot) must(`chown ${webUser?.name} ${folder}`);
  must(`cd / && ${prefix}${POSTGRES}/initdb -D ${folder}/data -U webjob --auth trust > /dev/null
${prefix}${POSTGRES}/pg_ctl -D ${folder}/data -w -l ${folder}/log -o "-k ${folder} -h ''" start > /dev/null`);
  after(() => void must(`cd / && ${prefix}${POSTGRES}/pg_ctl -D ${folder}/data -m immediate stop`));
  Object.assign(environment, { PGHOST: folder, PGUSER: 'webjob' });
}

describe('the cookbook', () => {
  const pages = [...readFileSync(join(cookbook, 'README.md'), 'utf8').matchAll(/^\| \[(\w+\.md)\]/gm)].map(
    ([, page = '']) => page,
  );

  it('lists its twelve recipes', () => {
    assert.equal(pages.length, 12);
    const files = readdirSync(cookbook).filter((name) => name !== 'README.md');
    assert.deepEqual(files.sort(), [...pages].sort());
  });

  for (const page of pages)
    describe(page, () => {
      it('says what to put into the profile, what to type, and what appears', () => {
        const text = readFileSync(join(cookbook, page), 'utf8');
        assert.match(text, /^## (?:In the profile|Before)$/m);
        assert.match(text, /^## What you see$/m);
        const kinds = readBlocks(page).map(({ words }) => words.slice(0, 2).join(' '));
        assert.ok(kinds.includes('sh server') && kinds.some((kind) => kind.startsWith('text')), kinds.join());
      });

      it('does what it says', () => {
        if (page === 'packages.md' && !hasProgram('dpkg-deb')) return;
        PREPARED[page]?.();
        checkShown(page, follow(page));
      });
    });
});
