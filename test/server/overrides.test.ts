// Overrides under httpd: settings of the main file only, the effect of every other setting when it
// is overridden, which of the three levels wins, and invalid files.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, beforeEach, describe, it } from 'node:test';
import { overrideSettings } from '../../cgi/overrides.ts';
import { Refusal } from '../../cgi/refusal.ts';
import { JOB_CONTROLS, SITE_CONTROLS } from '../../cgi/setting-table.ts';
import { readSettings } from '../../cgi/settings.ts';
import { formatBatch } from '../../fleet/batch-script.ts';
import { until } from '../support/cgi-scripts.ts';
import { endSwapper, raceLink, startSwapper } from '../support/hooks-link-race.ts';
import { type Ask, type Put, readLines, startCommandSite } from '../support/hooks-site.ts';
import { removeTree } from '../support/tree.ts';

const OF_COMMAND = 'commands/host.sh';
const OF_CLIENT = 'clients/client1';
const OF_BOTH = 'clients/client1/commands/host.sh';

const UPLOAD: Put = { jobId: 'a', out: 'out', err: 'error', env: 'env\n' };

const { site, ...its } = await startCommandSite('worker');
after(its.close);
const root = join(site.base, 'config/nph-webjob');

/** Writes the override of one level. */
function override(level: string, text: string | Buffer): string {
  const path = join(root, level, 'nph-webjob.cfg');
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  return path;
}

function reset(): void {
  its.reset();
  removeTree(join(site.base, 'config'));
}

/** Everything by which a setting could show that it has changed. */
async function observe(method: 'get' | 'put', ask: Put): Promise<Record<string, unknown>> {
  const { status, body, headers } = await its[method]({ ...UPLOAD, ...ask });
  const log = readLines(site.logFile).map((line) => line.replace(/^\S+ \S+ /, '').replace(/_\d{10}_\d+/, ''));
  return {
    status,
    body: body.toString(),
    jobId: headers.get('job-id')?.replace(/_\d{10}_\d+$/, ''),
    signature: headers.get('webjob-payload-signature'),
    names: readdirSync(site.incoming).join(' '),
    log: log.join('\n').replace(/ \d+ (\d{3} -- )/g, ' $1'),
    hook: its
      .commandLines('hook')
      .map(({ event }) => event)
      .join(' '),
    tracked: readLines(join(site.base, 'logfiles/nph-webjob.json.log')).length,
    recorded: readLines(join(site.base, 'logfiles/nph-webjob-custody.server_1.jsonl')).length,
  };
}

/**
 * What each setting of the main file would do if it could be overridden; `main` is its value in the
 * main file.
 */
const LOCKED: Record<string, { value: string; main?: Record<string, string>; ask?: Ask; method?: 'get' | 'put' }> = {
  BaseDirectory: { value: '/nonexistent' },
  ConfigDirectory: { value: '/nonexistent', main: { EnableHostAccessList: 'Y' } },
  DynamicDirectory: { value: '/nonexistent' },
  IncomingDirectory: { value: '/tmp', method: 'put', main: { PutNameFormat: '%jid' } },
  LimitsDirectory: { value: '/nonexistent', main: { MaxRequestsAtOnce: '3' } },
  LogfilesDirectory: { value: '/nonexistent' },
  ProfilesDirectory: { value: join(site.base, 'profiles/elsewhere') },
  SpoolDirectory: { value: '/nonexistent', main: { GetHookEnable: 'Y', GetHookCommandLine: 'echo made' } },
  EnableConfigOverrides: { value: 'N' },
  EnableHostAccessList: { value: 'N', main: { EnableHostAccessList: 'Y' } },
  EnableJobIds: { value: 'N' },
  EnableLogging: { value: 'N' },
  CustodySegmentLimit: { value: '1', method: 'put', main: { PutNameFormat: '%jid' } },
  EnableCustody: { value: 'N', method: 'put', main: { PutNameFormat: '%jid' } },
  EnableRequestTracking: { value: 'Y' },
  RequireMatch: { value: 'N', ask: { user: 'client2' } },
  RequireUser: { value: 'N', ask: { folder: '/open/' } },
  ServerId: { value: 'forged' },
  SiteServers: { value: 'forged:/nonexistent' },
  SslRequireCn: { value: 'N', main: { SslRequireCn: 'Y' } },
  SslRequireMatch: { value: 'N', main: { SslRequireMatch: 'Y' } },
  SslRequireSsl: { value: 'N', main: { SslRequireSsl: 'Y' } },
  UseGMT: { value: 'Y' },
  ViewURL: { value: 'https://forged.example' },
};

type Method = 'get' | 'put';
type Outcome = Record<string, unknown>;
const hook = (command: string, more = {}) => ({ GetHookEnable: 'Y', GetHookCommandLine: command, ...more });
const putHook = (command: string, more = {}) => ({ PutHookEnable: 'Y', PutHookCommandLine: command, ...more });

/**
 * Every setting that may be overridden: the value in the main file, and the effects without and
 * with the override.
 */
const OPEN: Record<
  string,
  [value: string, method: Method, main: Record<string, string>, without: Outcome, using: Outcome]
> = {
  BatchCommand: ['host.sh', 'get', {}, { body: 'here' }, { body: formatBatch('client1', []) }],
  CapContentLength: ['Y', 'put', { MaxContentLength: '11' }, { status: 200 }, { status: 455 }],
  MaxBytesPerDay: ['11', 'put', {}, { status: 200 }, { status: 507 }],
  MaxRequestsAtOnce: ['1', 'get', { LimitsDirectory: '/nonexistent' }, { status: 200 }, { status: 550 }],
  MaxUploadsPerDay: ['1', 'put', { MaxUploadsPerDay: '2' }, { status: 200 }, { status: 507 }],
  MaxContentLength: ['11', 'put', { CapContentLength: 'Y' }, { status: 200 }, { status: 455 }],
  DsvRequireSignatures: ['Y', 'get', { DsvSignatureSuffix: '.none' }, { status: 200 }, { status: 459 }],
  DsvSignatureSuffix: ['.asc', 'get', {}, { signature: undefined }, { signature: 'signed' }],
  EnableGetService: ['N', 'get', {}, { status: 200 }, { status: 553 }],
  EnablePutService: ['N', 'put', {}, { status: 200 }, { status: 553 }],
  FolderList: ['elsewhere', 'get', {}, { status: 404 }, { status: 200, body: 'from elsewhere' }],
  GetHookEnable: ['Y', 'get', { GetHookCommandLine: 'echo made' }, { body: 'here' }, { body: 'made\n' }],
  GetHookCommandLine: ['echo b', 'get', hook('echo a'), { body: 'a\n' }, { body: 'b\n' }],
  GetHookLogDivertedOutput: ['Y', 'get', hook('echo a >&2'), { hook: '0' }, { hook: 'err 0' }],
  GetHookOutputLimit: ['1', 'get', hook('echo a'), { status: 200 }, { status: 551 }],
  GetHookStatus: ['3', 'get', hook('exit 3'), { status: 551 }, { status: 200 }],
  GetHookTimeLimit: ['1', 'get', hook('sleep 1.5'), { status: 200 }, { status: 551 }],
  GetRequireContentLength: ['N', 'get', {}, { status: 454 }, { status: 200 }],
  GetTriggerEnable: ['Y', 'get', { GetTriggerCommandLine: 'exit 1' }, { trigger: '' }, { trigger: '1' }],
  GetTriggerCommandLine: [
    'exit 2',
    'get',
    { GetTriggerEnable: 'Y', GetTriggerCommandLine: 'exit 1' },
    { trigger: '1' },
    { trigger: '2' },
  ],
  OverwriteExistingFiles: ['Y', 'put', { PutNameFormat: 'taken' }, { status: 451 }, { status: 200 }],
  KeepDifferingUploads: [
    'N',
    'put',
    { OverwriteExistingFiles: 'Y', PutNameFormat: 'taken' },
    { names: 'taken~2.env taken~2.err taken~2.out taken~2.rdy' },
    { names: '' },
  ],
  PutHookEnable: ['Y', 'put', { PutHookCommandLine: 'exit 1' }, { status: 200 }, { status: 551 }],
  PutHookCommandLine: ['exit 1', 'put', putHook('exit 0'), { hook: '0' }, { hook: '1' }],
  PutHookLogDivertedOutput: ['Y', 'put', putHook('echo a; echo b >&2'), { hook: '0' }, { hook: 'out err 0' }],
  PutHookStatus: ['3', 'put', putHook('exit 3'), { status: 551 }, { status: 200 }],
  PutHookTimeLimit: ['1', 'put', putHook('sleep 1.5'), { status: 200 }, { status: 551 }],
  PutNameFormat: ['b', 'put', {}, { names: 'a.env a.err a.out a.rdy' }, { names: 'b.env b.err b.out b.rdy' }],
  PutTriggerEnable: ['Y', 'put', { PutTriggerCommandLine: 'exit 1' }, { trigger: '' }, { trigger: '1' }],
  PutTriggerCommandLine: [
    'exit 2',
    'put',
    { PutTriggerEnable: 'Y', PutTriggerCommandLine: 'exit 1' },
    { trigger: '1' },
    { trigger: '2' },
  ],
};

describe('overrides', () => {
  beforeEach(reset);
  writeFileSync(join(site.profiles, 'client1/host.sh'), 'here');
  writeFileSync(join(site.profiles, 'client1/host.sh.asc'), 'signed\n');
  for (const folder of ['elsewhere', 'elsewhere/client1']) {
    mkdirSync(join(site.profiles, folder), { recursive: true });
    for (const name of ['host.sh', 'far.sh']) writeFileSync(join(site.profiles, folder, name), 'from elsewhere');
  }

  it('are tested here for every setting', () => {
    assert.deepEqual(Object.keys(LOCKED).sort(), SITE_CONTROLS.map(({ key }) => key).sort());
    assert.deepEqual(Object.keys(OPEN).sort(), JOB_CONTROLS.map(({ key }) => key).sort());
  });

  for (const [key, { value, main = {}, ask = {}, method = 'get' }] of Object.entries(LOCKED)) {
    it(`cannot change ${key}, and the attempt is reported`, async () => {
      // The file exists, and lists another client.
      const others = (): void => {
        mkdirSync(root, { recursive: true });
        writeFileSync(join(root, 'hosts.access'), 'client1=192.0.2.1\n');
      };
      others();
      its.configure(main);
      const without = await observe(method, ask);
      reset();
      others();
      override(OF_COMMAND, `${key}=${value}\n`);
      override(OF_CLIENT, `# a comment\n\n${key.toUpperCase()} = ${value}\n`);
      override(OF_BOTH, `${key.toLowerCase()}=${value}\n`);
      assert.deepEqual(await observe(method, ask), without);
      const told = its
        .errors()
        .split('\n')
        .flatMap((line) => /nph-webjob: (.*)$/.exec(line)?.[1] ?? []);
      assert.deepEqual(told, [
        `${OF_COMMAND}/nph-webjob.cfg line 1: ${key} cannot be overridden`,
        `${OF_CLIENT}/nph-webjob.cfg line 3: ${key.toUpperCase()} cannot be overridden`,
        `${OF_BOTH}/nph-webjob.cfg line 1: ${key.toLowerCase()} cannot be overridden`,
      ]);
    });
  }

  for (const [key, [value, method, main, without, using]] of Object.entries(OPEN)) {
    it(`can change ${key}`, async () => {
      const fileName = key === 'FolderList' ? 'far.sh' : 'host.sh';
      const look = async (wanted: Outcome): Promise<void> => {
        for (const name of ['out', 'err', 'env']) writeFileSync(join(site.incoming, `taken.${name}`), '');
        writeFileSync(join(site.incoming, 'taken.rdy'), 'Jid=z\n');
        const seen: Outcome = await observe(method, { fileName, hasNoLength: key === 'GetRequireContentLength' });
        seen.names = String(seen.names)
          .replaceAll(/taken\.\w+ ?/g, '')
          .trim();
        if (wanted.trigger) await until(() => its.commandLines('trigger').length === 2, 'the end of the trigger');
        seen.trigger = its
          .commandLines('trigger')
          .map(({ event }) => event ?? '')
          .join('');
        assert.deepEqual(Object.fromEntries(Object.keys(wanted).map((name) => [name, seen[name]])), wanted);
      };
      its.configure({ PutNameFormat: '%jid', ...main });
      await look(without);
      reset();
      override(OF_CLIENT, `${key.toLowerCase()}=${value}\n`);
      await look(using);
      assert.doesNotMatch(its.errors(), /cannot be overridden/);
    });
  }

  it('apply in order: the command, the client, the command of the client', async () => {
    for (let chosen = 0; chosen < 8; chosen++) {
      reset();
      its.configure({ PutNameFormat: 'm' });
      const levels = [OF_COMMAND, OF_CLIENT, OF_BOTH].filter((_, index) => chosen & (1 << index));
      for (const level of levels) override(level, `PutNameFormat=first\nPUTNAMEFORMAT=${level.replaceAll('/', '-')}\n`);
      for (const other of [
        'commands/other.sh',
        'clients/client2',
        'clients/client2/commands/host.sh',
        'clients/CLIENT1',
        '.',
        'clients',
      ])
        override(other, 'EnablePutService=N\n');
      assert.equal((await its.put(UPLOAD)).status, 200);
      const winner = (levels.at(-1) ?? 'm').replaceAll('/', '-');
      assert.deepEqual(
        readdirSync(site.incoming),
        ['env', 'err', 'out', 'rdy'].map((extension) => `${winner}.${extension}`),
      );
    }
  });

  it('are ignored as a whole while EnableConfigOverrides=N, even malformed ones', async () => {
    its.configure({ EnableConfigOverrides: 'N' });
    override(OF_CLIENT, 'EnableGetService=maybe\nRequireUser=N\n');
    assert.equal((await its.get()).status, 200);
    assert.doesNotMatch(its.errors(), /nph-webjob:/);
  });

  it('may contain unknown keys, binary bytes, and megabytes', async () => {
    its.configure({ PutNameFormat: 'm' });
    const noise = Buffer.from(Array.from({ length: 4096 }, (_, index) => (index * 7) % 256));
    const lines = `\nNoSuchControl=1\n__proto__=x\nconstructor=x\ntoString\n=N\n${'#'.repeat(8_000_000)}\n${'a=b\n'.repeat(20_000)}`;
    override(OF_CLIENT, Buffer.concat([noise, Buffer.from(`${lines}PutNameFormat=huge\r\n`)]));
    assert.equal((await its.put(UPLOAD)).status, 200);
    assert.ok(readdirSync(site.incoming).includes('huge.rdy'));
  });

  it('cause 550 for the affected requests when they are malformed, and name level and line', async () => {
    its.configure({});
    override(OF_BOTH, '# 1\nPutHookStatus=256\n');
    assert.equal((await its.get()).status, 550);
    assert.match(
      readLines(site.logFile).at(-1) ?? '',
      / 550 -- .*PutHookStatus in clients\/client1\/commands\/host\.sh\/nph-webjob\.cfg line 2 /,
    );
    assert.equal((await its.get({ fileName: 'host.sh.asc' })).status, 200);
    override(OF_BOTH, 'GetHookEnable=Y\n');
    assert.equal((await its.get()).status, 550, 'a hook without a command');
  });

  it('cause 550 when they cannot be read, and are never skipped', async () => {
    its.configure({});
    const breakings: Record<string, (path: string) => void> = {
      'a folder': (path) => mkdirSync(path),
      'a named pipe': (path) => assert.equal(spawnSync('mkfifo', [path]).status, 0),
      'a link to nowhere': (path) => symlinkSync('nowhere', path),
      'a link to itself': (path) => symlinkSync('nph-webjob.cfg', path),
      'a link to the outside': (path) => symlinkSync(site.propertiesFile, path),
      'a link to a device': (path) => symlinkSync('/dev/zero', path),
      'a closed file': (path) => writeFileSync(path, '', { mode: 0 }),
      'a closed folder': (path) => chmodSync(dirname(path), 0),
      'a closed root': () => chmodSync(root, 0),
      'a closed ConfigDirectory': () => chmodSync(dirname(root), 0),
    };
    for (const [name, breakIt] of Object.entries(breakings)) {
      reset();
      const path = override(OF_CLIENT, '');
      rmSync(path);
      assert.equal((await its.get()).status, 200, `before ${name}`);
      breakIt(path);
      assert.equal((await its.get()).status, 550, name);
      assert.match(readLines(site.logFile).at(-1) ?? '', / 550 -- /);
    }
  });
});

describe('a link among the overrides that is swapped during the lookup', () => {
  /** Files inside and outside of the directory of overrides, and `link` beside or above them. */
  function prepare(link: string): void {
    reset();
    its.configure({ PutNameFormat: 'main' });
    const name = link.endsWith('.cfg') ? 'nph-webjob.cfg' : 'commands/host.sh/nph-webjob.cfg';
    for (const [place, format] of [
      [join(root, 'inside'), 'inside'],
      [join(site.base, 'config/outside'), 'outside'],
    ] as const) {
      mkdirSync(dirname(join(place, name)), { recursive: true });
      writeFileSync(join(place, name), `PutNameFormat=${format}\n`);
    }
    mkdirSync(join(root, 'clients/client1'), { recursive: true });
  }

  for (const [what, link, targets] of [
    ['a file', 'clients/client1/nph-webjob.cfg', ['../../inside/nph-webjob.cfg', '../../../outside/nph-webjob.cfg']],
    ['a folder', 'clients/client1/commands', ['../../inside/commands', '../../../outside/commands']],
  ] as const) {
    it(`never brings ${what} from outside into effect`, async () => {
      prepare(link);
      const { given, settings } = readSettings(site.propertiesFile);
      const look = (): string => {
        try {
          return overrideSettings(settings, given, 'client1', 'host.sh').putNameFormat;
        } catch (error) {
          if (error instanceof Refusal) return String(error.status);
          throw error;
        }
      };
      const seen = await raceLink(join(root, link), targets, look, ['inside', '550']);
      assert.deepEqual([...seen.keys()].sort(), ['550', 'inside']);
    });
  }

  it('brings nothing into effect under httpd either', async () => {
    prepare('clients/client1/nph-webjob.cfg');
    const link = join(root, 'clients/client1/nph-webjob.cfg');
    const swapper = await startSwapper(link, ['../../inside/nph-webjob.cfg', '../../../outside/nph-webjob.cfg']);
    try {
      for (let count = 0; count < 20; count++) {
        const { status } = await its.put(UPLOAD);
        assert.ok([200, 451, 550].includes(status), `${status}`);
      }
    } finally {
      await endSwapper(swapper);
    }
    const names = readdirSync(site.incoming);
    assert.ok(!names.some((name) => name.startsWith('outside') || name.startsWith('main')), names.join());
    assert.doesNotMatch(readFileSync(site.logFile, 'utf8'), / 500 -- /);
  });
});
