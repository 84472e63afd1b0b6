// Broken sites: configtest finds each fault and nothing else, its remedy works when pasted into a
// shell, and then a client is served. One site is broken repeatedly, each time in several places
// that do not hide each other; every round begins with a repaired site.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { request as plainRequest } from 'node:http';
import { request as secureRequest } from 'node:https';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { formatGetQuery, formatPutQuery } from 'webjob-protocol';
import { obtainHtpasswd, obtainHttpd } from '../../scripts/httpd-package.ts';
import { noteMount } from '../../scripts/test-leftovers.ts';
import { findWebUser } from '../../scripts/web-user.ts';
import { isRoot } from '../support/deployment-guide.ts';
import { type Apache, formatBasics, startApache } from '../support/deployment-httpd.ts';
import { fillBytes, fillInodes, findMountObstacle, mountTmpfs } from '../support/locker-tmpfs.ts';
import { type Ground, makeGround, parseLines, runWebjobctl } from '../support/operator.ts';
import { WEBJOBCTL } from '../support/program-runs.ts';

interface Finding {
  severity: string;
  what: string;
  where: string;
  remedy: string;
}

interface Fault {
  /** The fault's name in the test. */
  name: string;
  /**
   * The places of the fault, and those where it hides other faults: a round has at most one fault
   * in each place.
   */
  places: readonly ('incoming' | 'logs' | 'programs' | 'settings' | 'script' | 'access' | 'httpd')[];
  breaks(): void;
  /** The finding; of several with one cause the first, whose remedy repairs all. */
  finds: RegExp;
  /** An additional repair, where the remedy leaves something to a person. */
  besides?: () => void;
  /** Undoes preparations of the test. */
  tidies?: () => void;
  /** httpd must be reloaded before the fault is visible. */
  reloads?: true;
}

const MODULES =
  'mpm_event cgid alias env auth_basic authn_core authn_file authz_core authz_user reqtimeout ssl socache_shmcb';
const obstacle = isRoot ? findMountObstacle() : 'owners need root';
const { binary, libraryPath } = obtainHttpd();
obtainHtpasswd();
const web = findWebUser();

class BrokenSite {
  readonly ground: Ground = makeGround();
  readonly conf = this.at('httpd', 'httpd.conf');
  httpd: Apache | undefined;
  readonly #name: string;
  readonly #options: readonly string[];

  constructor(name: string, options: readonly string[] = []) {
    this.#name = name;
    this.#options = options;
  }

  at(...names: string[]): string {
    return join(this.ground.root, ...names);
  }

  /** `etc/nph-webjob.cfg` */
  path(name: string): string {
    return this.at(this.#name, name);
  }

  get port(): number {
    return this.httpd?.ports[0] ?? 0;
  }

  async make(): Promise<void> {
    mkdirSync(this.at('httpd'));
    mkdirSync(this.at('programs'));
    const webjobctl = `#!/bin/sh\nexec "${process.execPath}" "${WEBJOBCTL}" "$@"\n`;
    writeFileSync(this.at('programs', 'webjobctl'), webjobctl, { mode: 0o755 });
    this.httpd = await startApache({
      serverRoot: this.at('httpd'),
      configurationFile: this.conf,
      portCount: 1,
      errorLog: this.at('httpd', 'error.log'),
      configure: (ports) => {
        const text = `ServerRoot "${this.at('httpd')}"\n${formatBasics(this.at('httpd'), ports, MODULES)}`;
        writeFileSync(this.conf, text);
      },
    });
    const tls = this.#options.includes('--tls') ? ['--tls-port', String(this.port)] : [];
    const apply = ['--apply', '--httpd', binary, '--httpd-conf', this.conf];
    const init = ['--prefix', this.at(this.#name), '--node', this.ground.node, ...this.#options, ...tls];
    await this.reloading(() => this.ground.run(0, 'init', ...init, ...apply));
    await this.client('add', 'client1', tls.length > 0 ? '--cert' : '--generate', '--url', this.url);
    this.addProgram();
  }

  get url(): string {
    return `${this.#options.includes('--tls') ? 'https' : 'http'}://127.0.0.1:${this.port}/`;
  }

  addProgram(text = '#!/bin/sh\nhostname\n'): void {
    writeFileSync(this.path('integrity/profiles/client1/commands/host.sh'), text);
  }

  client(...args: string[]): Promise<string> {
    return this.ground.run(0, '-c', this.path('etc/nph-webjob.cfg'), 'client', ...args);
  }

  async remove(): Promise<void> {
    await this.httpd?.stop();
    this.ground.remove();
  }

  /** Errors, warnings and notes with a remedy, except those about the test machine. */
  async configtest(...more: string[]): Promise<Finding[]> {
    const args = ['-c', this.path('etc/nph-webjob.cfg'), 'configtest', '--json', '--httpd', binary];
    const { stdout, stderr } = await runWebjobctl([...args, '--httpd-conf', this.conf, ...more], {
      cwd: this.ground.root,
    });
    assert.equal(stderr, '');
    return parseLines<Finding>(stdout).filter(
      ({ severity, what, where }) =>
        severity !== 'note' && where !== 'timedatectl' && !/little space is left|few inodes are left/.test(what),
    );
  }

  /** Runs a remedy as pasted. A restart of httpd is complete when it serves again. */
  async paste(command: string): Promise<void> {
    const run = (): void => {
      const ended = spawnSync('/bin/sh', ['-euc', command], {
        cwd: this.ground.root,
        encoding: 'utf8',
        timeout: 60_000,
        env: {
          PATH: `${this.at('programs')}:/usr/sbin:/usr/bin:/sbin:/bin`,
          ...(libraryPath && { LD_LIBRARY_PATH: libraryPath }),
        },
      });
      assert.equal(ended.status, 0, `${command}: ${ended.stdout}${ended.stderr}`);
    };
    if (/-k (?:graceful|restart)/.test(command)) await this.reloading(run);
    else run();
  }

  reload(): Promise<void> {
    return this.reloading(() => void this.httpd?.control('-k', 'graceful'));
  }

  async reloading(work: () => unknown): Promise<void> {
    const count = (): number => this.httpd?.complaints().split('resuming normal operations').length ?? 0;
    const was = count();
    await work();
    for (let i = 0; count() === was && i < 500; i++) await sleep(10);
    assert.notEqual(count(), was, 'httpd was not reloaded');
  }

  /** What a client gets, with the kit that it was given last. */
  async serves(kit = 'client1', puts = false): Promise<void> {
    assert.equal(await this.#ask('GET', kit), 200);
    if (puts) assert.equal(await this.#ask('PUT', kit), 200);
  }

  #ask(method: 'GET' | 'PUT', kit: string): Promise<number> {
    const names = { version: 'webjob test', system: 'test', clientId: kit.split('-')[0] ?? '', fileName: 'host.sh' };
    const query =
      method === 'GET'
        ? formatGetQuery(names)
        : formatPutQuery({ ...names, runType: 'snapshot', outLength: 3, errLength: 0, envLength: 0 });
    const conf = readFileSync(this.at(kit, 'webjob.conf'), 'utf8');
    const [, password] = /^URLPassword=(.*)$/m.exec(conf) ?? [];
    const name = kit.split('-')[0] ?? '';
    const basic = `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`;
    const identity = existsSync(this.at(kit, `${name}.crt`))
      ? { cert: readFileSync(this.at(kit, `${name}.crt`)), key: readFileSync(this.at(kit, `${name}.key`)) }
      : {};
    const body = method === 'PUT' ? 'abc' : '';
    return new Promise((resolve, reject) => {
      const request = (this.url.startsWith('https') ? secureRequest : plainRequest)(
        `${this.url}webjob/nph-webjob.cgi?${query}`,
        {
          method,
          agent: false,
          rejectUnauthorized: false,
          ...identity,
          headers: { 'Content-Length': body.length, ...(password !== undefined && { Authorization: basic }) },
        },
        (response) => response.resume().on('end', () => resolve(response.statusCode ?? 0)),
      );
      request.on('error', reject).end(body);
    });
  }

  /** Breaks the site, finds exactly these faults, pastes their remedies, and is served again. */
  async mend(faults: readonly Fault[], kit?: string, ...probe: string[]): Promise<void> {
    for (const { breaks } of faults) breaks();
    if (faults.some(({ reloads }) => reloads)) await this.reload();
    try {
      const found = await this.configtest(...probe);
      const own = faults.map(({ name, finds }) => {
        const first = found.find(({ what }) => finds.test(what));
        assert.ok(first, `${name} was not found: ${JSON.stringify(found, undefined, 1)}`);
        return first;
      });
      for (const { what, remedy } of found) {
        const isKnown = faults.some(({ finds }) => finds.test(what)) || own.some((one) => one.remedy === remedy);
        assert.ok(isKnown, `${what} is another fault: ${remedy}`);
      }
      for (const { remedy } of own) await this.paste(remedy);
      for (const { besides } of faults) besides?.();
      await this.serves(
        kit,
        faults.some(({ places }) => places.includes('incoming')),
      );
    } finally {
      for (const { tidies } of faults) tidies?.();
    }
  }
}

/** Rounds with at most one fault in every place. */
function makeRounds(faults: readonly Fault[]): Fault[][] {
  const rounds: Fault[][] = [];
  for (const fault of faults) {
    const isFree = (others: readonly Fault[]): boolean =>
      others.every(({ places }) => !places.some((place) => fault.places.includes(place)));
    const round = rounds.find(isFree);
    if (round) round.push(fault);
    else rounds.push([fault]);
  }
  return rounds;
}

const nameOf = (faults: readonly Fault[]): string => faults.map(({ name }) => name).join('; ');

const replace = (path: string, found: RegExp | string, by: string): void => {
  const text = readFileSync(path, 'latin1');
  const changed = text.replace(found, () => by);
  assert.notEqual(changed, text, `${path} has no ${found}`);
  writeFileSync(path, changed, 'latin1');
};

const mount = (path: string, ...more: string[]): void => {
  for (const args of [['--bind', path, path], ...(more.length > 0 ? [['-o', `remount,bind,${more}`, path]] : [])])
    assert.equal(spawnSync('mount', args).status, 0, `mount ${args.join(' ')}`);
  noteMount(path);
};

/** The processes that httpd runs there must end first. */
const unmountBind = (path: string): void => {
  assert.equal(spawnSync('umount', ['-l', path]).status, 0);
};

describe('a broken site', { skip: obstacle }, () => {
  const site = new BrokenSite('site');
  before(() => site.make());
  after(() => site.remove());

  const path = (name: string): string => site.path(name);
  const mode = (name: string, bits: number) => () => chmodSync(path(name), bits);
  const give =
    (name: string, uid = 0) =>
    () =>
      chownSync(path(name), uid, 0);
  const giveWeb = (name: string) => () => chownSync(path(name), web?.uid ?? 0, 0);
  const remove = (name: string) => () => rmSync(path(name), { recursive: true });
  const edit = (name: string, found: RegExp | string, by: string) => () => replace(path(name), found, by);
  const cfg = (line: string) => () => {
    const [key = ''] = line.split('=');
    replace(path('etc/nph-webjob.cfg'), new RegExp(`^#?${key}=.*$`, 'm'), line);
  };
  const httpdConf = (line: string) => () => writeFileSync(site.conf, `${readFileSync(site.conf, 'utf8')}${line}\n`);
  const immutable = (name: string): Pick<Fault, 'breaks' | 'tidies'> => ({
    breaks: () => assert.equal(spawnSync('chattr', ['+i', path(name)]).status, 0),
    // Otherwise the directory could not be removed.
    tidies: () => void spawnSync('chattr', ['-i', path(name)]),
  });
  const program = (text: string) => () => site.addProgram(text);
  const [incoming, logs, log] = ['integrity/incoming', 'integrity/logfiles', 'integrity/logfiles/nph-webjob.log'];
  const [script, access, users] = ['webjob/nph-webjob.cgi', 'webjob/.htaccess', 'etc/webjob.htpasswd'];
  const unmount = (name: string) => () => unmountBind(path(name));

  const faults: Fault[] = [
    {
      places: ['incoming'],
      name: 'IncomingDirectory that was removed',
      breaks: remove(incoming),
      finds: /^IncomingDirectory does not exist/,
    },
    {
      places: ['incoming'],
      name: "IncomingDirectory that is root's",
      breaks: give(incoming),
      finds: /cannot write in IncomingDirectory$/,
    },
    {
      places: ['incoming'],
      name: 'IncomingDirectory that its owner may not write',
      breaks: mode(incoming, 0o555),
      finds: /cannot write in IncomingDirectory$/,
    },
    {
      places: ['incoming'],
      name: 'IncomingDirectory that everybody may write',
      breaks: mode(incoming, 0o777),
      finds: /^everyone can write to IncomingDirectory/,
    },
    {
      places: ['incoming'],
      name: 'a read-only IncomingDirectory',
      tidies: unmount(incoming),
      breaks: () => mount(path(incoming), 'ro'),
      finds: /cannot write in IncomingDirectory: the file system is read-only/,
    },
    {
      places: ['incoming'],
      name: 'an immutable IncomingDirectory',
      ...immutable(incoming),
      finds: /cannot write in IncomingDirectory: it is immutable/,
    },
    {
      places: ['incoming'],
      name: 'a full disk',
      breaks: () => {
        mountTmpfs(path(incoming), 'size=64m');
        fillBytes(path(`${incoming}/filler`));
      },
      finds: /^no (?:room|space) is left/,
      besides: remove(`${incoming}/filler`),
      tidies: unmount(incoming),
    },
    {
      places: ['incoming'],
      name: 'a disk without an inode',
      breaks: () => {
        mountTmpfs(path(incoming), 'size=10g,nr_inodes=50');
        fillInodes(path(`${incoming}/filler`), 0);
      },
      finds: /^no inode is left/,
      besides: remove(`${incoming}/filler`),
      tidies: unmount(incoming),
    },
    {
      places: ['logs'],
      name: 'read-only logs',
      tidies: unmount(logs),
      breaks: () => mount(path(logs), 'ro'),
      finds:
        /cannot (?:write the log|begin another file of the custody record, .*): the file system is read-only|custody/,
    },
    {
      places: ['logs'],
      name: "a log that is root's",
      breaks: give(log),
      finds: /cannot write the log, which belongs to root/,
    },
    {
      places: ['logs'],
      name: 'an immutable log',
      ...immutable(log),
      finds: /cannot write the log: it is immutable/,
    },
    { places: ['logs'], name: 'a log that was removed', breaks: remove(log), finds: /^the log does not exist/ },
    {
      places: ['logs'],
      name: 'logs that could be replaced',
      breaks: giveWeb(logs),
      finds: /can write to LogfilesDirectory/,
    },
    {
      places: ['programs'],
      name: 'programs that nobody may list',
      breaks: mode('integrity/profiles', 0o700),
      finds: /cannot (?:enter|list) ProfilesDirectory/,
    },
    {
      places: ['programs'],
      name: 'programs that could be changed',
      breaks: giveWeb('integrity/profiles'),
      finds: /can write to ProfilesDirectory/,
    },
    {
      places: ['programs'],
      name: 'a closed folder of programs',
      breaks: mode('integrity/profiles/client1', 0o700),
      finds: /cannot enter this directory of programs/,
    },
    {
      places: ['programs'],
      name: 'a program of mode 0600',
      breaks: mode('integrity/profiles/client1/commands/host.sh', 0o600),
      finds: /cannot read this program, so clients get 457/,
    },
    {
      places: ['programs'],
      name: 'a program with CRLF',
      breaks: program('#!/bin/sh\r\nhostname\r\n'),
      finds: /^clients cannot run this program: its lines end in CRLF/,
    },
    {
      places: ['programs'],
      name: 'a program with a byte order mark',
      breaks: program('\ufeff#!/bin/sh\nhostname\n'),
      finds: /^clients cannot run this program: a byte order mark/,
    },
    {
      places: ['programs'],
      name: 'a program whose interpreter is misspelt',
      breaks: program('#!/bin/bsah\nhostname\n'),
      finds: /^the interpreter of this program .*: \/bin\/bsah/,
    },
    {
      places: ['settings'],
      name: 'settings that nobody may read',
      breaks: mode('etc/nph-webjob.cfg', 0o600),
      finds: /cannot read the settings/,
    },
    {
      places: ['settings'],
      name: 'settings that could be changed',
      breaks: giveWeb('etc/nph-webjob.cfg'),
      finds: /can write to the settings/,
    },
    {
      places: ['incoming', 'logs', 'programs', 'settings'],
      name: 'a misspelt BaseDirectory',
      breaks: () => cfg(`BaseDirectory=${path('integirty')}`)(),
      finds: /^BaseDirectory names the wrong directory, .*integirty/,
    },
    {
      places: ['incoming', 'logs', 'programs', 'settings'],
      name: 'a BaseDirectory one folder too high',
      breaks: () => cfg(`BaseDirectory=${site.at('site')}`)(),
      finds: /^BaseDirectory names the wrong directory/,
    },
    {
      places: ['incoming'],
      name: 'a misspelt IncomingDirectory',
      breaks: () => replace(path('etc/nph-webjob.cfg'), /$/, `\nIncomingDirectory=${path('integrity/imcoming')}\n`),
      finds: /^IncomingDirectory names the wrong directory/,
    },
    {
      places: ['settings'],
      name: 'a misspelt setting',
      breaks: edit('etc/nph-webjob.cfg', 'RequireUser=', 'RequireUsr='),
      finds: /^RequireUsr is not a setting/,
    },
    {
      places: ['settings'],
      name: 'a line without a value',
      breaks: edit('etc/nph-webjob.cfg', /$/, '\nno setting\n'),
      finds: /^a line without Key=Value/,
    },
    {
      places: ['settings'],
      name: 'a value that is not allowed',
      breaks: cfg('RequireMatch=perhaps'),
      finds: /^RequireMatch in line \d+ has/,
    },
    {
      places: ['settings'],
      name: 'users that nobody asks for',
      breaks: cfg('RequireUser=N'),
      finds: /^requests need no credentials/,
    },
    {
      places: ['settings'],
      name: 'requests without a log',
      breaks: cfg('EnableLogging=N'),
      finds: /^no request leaves a line in the log/,
    },
    {
      places: ['settings', 'access', 'httpd'],
      name: 'TLS that is required and not there',
      breaks: cfg('SslRequireSsl=Y'),
      finds: /^SslRequireSsl=Y, and/,
    },
    {
      places: ['settings', 'access', 'httpd'],
      name: 'certificates that are required and not asked for',
      breaks: cfg('SslRequireMatch=Y'),
      finds: /^SslRequireMatch=Y, and/,
    },
    {
      places: ['settings'],
      name: 'a list of addresses that is not there',
      breaks: cfg('EnableHostAccessList=Y'),
      finds: /^EnableHostAccessList=Y, but the list does not exist/,
    },
    {
      places: ['script'],
      name: 'a script that nobody may run',
      breaks: mode(script, 0o644),
      finds: /cannot run the script/,
    },
    {
      places: ['script'],
      name: 'a script that could be changed',
      breaks: giveWeb(script),
      finds: /can change what httpd runs/,
    },
    {
      places: ['script'],
      name: 'a script on a file system without programs',
      tidies: unmount('webjob'),
      breaks: () => mount(path('webjob'), 'noexec'),
      finds: /cannot run the script: its file system is mounted noexec/,
    },
    {
      places: ['script'],
      name: 'a script with CRLF',
      breaks: edit(script, /^(.*)\n/, `#!${site.ground.node}\r\n`),
      finds: /^httpd cannot run the script: its lines end in CRLF/,
    },
    {
      places: ['script'],
      name: 'a script with a byte order mark',
      breaks: edit(script, /^/, '\xef\xbb\xbf'),
      finds: /^httpd cannot run the script: a byte order mark/,
    },
    {
      places: ['script'],
      name: 'a script whose interpreter is gone',
      breaks: edit(script, /^.*/, '#!/opt/node-20/bin/node'),
      finds: /^the interpreter of the script does not exist: \/opt\/node-20/,
    },
    {
      places: ['script'],
      name: 'a script with another interpreter',
      breaks: edit(script, /^.*/, '#!/bin/sh'),
      finds: /^the interpreter of the script is not Node/,
    },
    {
      places: ['script'],
      name: 'a renamed script',
      breaks: () => renameSync(path(script), path('webjob/nph-job.cgi')),
      finds: /^clients ask for nph-webjob.cgi, and the script is called nph-job.cgi/,
    },
    {
      places: ['script'],
      name: 'a script that httpd takes for another kind',
      breaks: () => renameSync(path(script), path('webjob/webjob.cgi')),
      finds: /does not begin with nph-/,
    },
    { places: ['script'], name: 'no script', breaks: remove(script), finds: /^the directory contains no script/ },
    { places: ['access'], name: 'no .htaccess', breaks: remove(access), finds: /^all access is denied/ },
    {
      places: ['access'],
      name: '.htaccess that httpd may not read',
      breaks: mode(access, 0o600),
      finds: /cannot read .htaccess/,
    },
    {
      places: ['access'],
      name: '.htaccess that lets everybody in',
      breaks: edit(access, /^/, 'Require all granted\n'),
      finds: /^\.htaccess allows some requests without credentials|^requests without credentials reach the script/,
    },
    {
      places: ['access'],
      name: 'a misspelt user file',
      breaks: edit(access, 'webjob.htpasswd', 'webjob.htpaswd'),
      finds: /names no file/,
    },
    {
      places: ['access'],
      name: 'users that httpd may not read',
      breaks: mode(users, 0o600),
      finds: /cannot read the users/,
    },
    {
      places: ['access'],
      name: 'users that everybody may read',
      breaks: mode(users, 0o644),
      finds: /can read the password hashes/,
    },
    {
      places: ['access'],
      name: 'a weak hash',
      breaks: edit(users, /^client1:.*$/m, 'client1:{SHA}C+7Hteo/D9vJXQ3UfzxbwnXaijM='),
      finds: /^the hash of 1 passwords is weak/,
    },
    {
      places: ['httpd', 'script', 'access'],
      name: 'an Include that was removed',
      breaks: () => replace(site.conf, /^Include .*\n/m, ''),
      finds: /^no ScriptAlias leads to the script/,
    },
    {
      places: ['httpd'],
      name: 'a misspelt directive',
      breaks: httpdConf('Scriptallias /x/ /y/'),
      finds: /refuses its configuration: .*Scriptallias/,
    },
    {
      places: ['httpd'],
      name: 'a place that is open to everybody',
      reloads: true,
      breaks: httpdConf('<Location "/webjob/">\nRequire all granted\n</Location>'),
      finds: /^<Location "\/webjob\/"> lets in everybody|^requests without credentials reach the script/,
    },
    {
      places: ['httpd'],
      name: '.htaccess that httpd does not read',
      reloads: true,
      breaks: () => httpdConf(`<Directory "${path('webjob')}">\nAllowOverride None\n</Directory>`)(),
      finds: /^\.htaccess is ignored/,
    },
    {
      places: ['httpd'],
      name: 'settings that httpd looks for elsewhere',
      reloads: true,
      breaks: edit('etc/webjob-site.conf', 'etc/nph-webjob.cfg', 'etc/nph-webjb.cfg'),
      finds: /^httpd gives the script .*nph-webjb\.cfg, which does not exist/,
    },
    {
      places: ['httpd', 'script', 'access'],
      name: 'a script that httpd looks for elsewhere',
      reloads: true,
      breaks: edit(
        'etc/webjob-site.conf',
        /^(Define WEBJOB_CGI_DIRECTORY .*)b$/m,
        `Define WEBJOB_CGI_DIRECTORY ${site.at('site')}/wbejob`,
      ),
      finds: /^ScriptAlias leads to a directory that does not exist, .*wbejob/,
    },
    {
      places: ['httpd'],
      name: 'a module that is not loaded',
      reloads: true,
      breaks: () => replace(site.conf, /^LoadModule authz_user_module.*\n/m, ''),
      finds: /^httpd has not loaded mod_authz_user/,
    },
    { places: ['httpd'], name: 'TRACE', breaks: httpdConf('TraceEnable On'), reloads: true, finds: /TRACE is on/ },
  ];

  it('is served as long as nothing is broken', async () => {
    assert.deepEqual(await site.configtest(), []);
    await site.serves('client1', true);
  });

  for (const round of makeRounds(faults)) it(`is repaired: ${nameOf(round)}`, () => site.mend(round));

  it('is repaired when httpd does not know the password that the probe uses', async () => {
    const breaks = (): void => replace(site.at('client1/webjob.conf'), /^URLPassword=.*$/m, 'URLPassword=wrong');
    const probe = ['--probe', site.url, '--as', 'client1/webjob.conf'];
    await site.mend(
      [{ name: 'password', places: [], breaks, finds: /^(?:link test|GET webjobctl-probe|PUT): 401/ }],
      'client1',
      ...probe,
    );
  });

  it('is repaired when a client has a certificate where passwords are required', async () => {
    await site.client('add', 'client2', '--cert', '--url', site.url);
    mkdirSync(path('integrity/profiles/client2/commands'), { recursive: true });
    writeFileSync(path('integrity/profiles/client2/commands/host.sh'), '#!/bin/sh\n');
    const finds = /^1 client has a certificate and no password, which this site requires: client2$/;
    await site.mend([{ name: 'certificate', places: [], breaks: () => {}, finds }], 'client2-password');
  });

  it('was broken at least forty times, each with a remedy of its own', () => assert.ok(faults.length >= 40));

  it('has no fault at the end', async () => {
    assert.deepEqual(await site.configtest('--probe', site.url, '--as', 'client1/webjob.conf'), []);
  });
});

describe('a broken site with certificates', { skip: obstacle }, () => {
  const site = new BrokenSite('secure', ['--tls', '--certificates', '--server-name', 'webjob.example.com']);
  before(() => site.make());
  after(() => site.remove());
  const path = (name: string): string => site.path(name);

  const faults: Fault[] = [
    {
      name: 'a misspelt ServerName',
      places: ['httpd'],
      reloads: true,
      breaks: () => replace(path('etc/webjob-site.conf'), 'webjob.example.com', 'wbejob.example.com'),
      finds: /^VirtualHost .* is called wbejob\.example\.com, and its certificate is for webjob\.example\.com/,
    },
    {
      name: 'a certificate that makes no user',
      places: ['access'],
      breaks: () => replace(path('webjob/.htaccess'), /^SSLUserName.*\n/m, ''),
      finds: /^RequireUser=Y, but \.htaccess does not take the user from the certificate/,
    },
    {
      name: 'certificates that nobody verified',
      places: ['httpd'],
      reloads: true,
      breaks: () =>
        replace(path('etc/webjob-certificates.conf'), /^SSLVerifyClient .*$/m, 'SSLVerifyClient optional_no_ca'),
      finds: /^unverified certificates are accepted/,
    },
    {
      name: 'a private key that others can read',
      places: ['settings'],
      breaks: () => chmodSync(path('etc/webjob-server.key'), 0o644),
      finds: /^others can read the private key/,
    },
    {
      name: 'a revocation list that has ended',
      places: ['logs'],
      breaks: () => {
        const dates = '-crl_lastupdate 20200101000000Z -crl_nextupdate 20200102000000Z';
        const command = `ca -config ca.cnf -gencrl ${dates} -out ../webjob-ca.crl`;
        const ended = spawnSync('openssl', command.split(' '), { cwd: path('etc/webjob-ca'), encoding: 'utf8' });
        assert.equal(ended.status, 0, ended.stderr);
      },
      finds: /^the revocation list expired 2020-01-02/,
    },
  ];
  for (const round of makeRounds(faults)) it(`is repaired: ${nameOf(round)}`, () => site.mend(round));

  it('is repaired when a client has a password where certificates are required', async () => {
    await site.client('add', 'client2', '--generate', '--url', site.url);
    writeFileSync(path('integrity/profiles/client2/commands/host.sh'), '#!/bin/sh\n');
    const finds = /^1 client has a password and no certificate, which this site requires: client2$/;
    await site.mend([{ name: 'password', places: [], breaks: () => {}, finds }], 'client2-certificate');
  });

  it('has no fault at the end', async () => {
    assert.deepEqual(await site.configtest(), []);
  });
});
