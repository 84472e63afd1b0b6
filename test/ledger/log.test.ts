// How webjobctl reads a log, however it was rotated, compressed and written; and hours that occur
// twice.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  appendFileSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, describe, it } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { canRun } from '../../admin/node-version.ts';
import { readSite } from '../../admin/site/site.ts';
import { followLines } from '../../ledger/follow.ts';
import { followLogs } from '../../ledger/log.ts';
import { BLOCK_BYTES, findFirstTime, findLastTime, readBlock, seekTime } from '../../ledger/seek.ts';
import { makeLockerSite, runWebjobctl } from '../support/locker-site.ts';

const lineOf = (time: string, jobId: string, end = '\n'): string =>
  `${time} ${jobId} client1 127.0.0.1 GET client1 host.sh 0 19 0 200 -- Success${end}`;

describe('a log that is compressed or has other line ends', () => {
  const its = makeLockerSite({ UseGMT: 'Y' });
  after(its.close);
  const made: string[] = [];
  const put = (ending: string, content: string | Buffer): void => {
    const path = join(its.site.base, 'logfiles', `nph-webjob.log${ending}`);
    made.push(path);
    writeFileSync(path, content);
  };
  afterEach(() => {
    for (const path of made.splice(0)) rmSync(path);
  });
  const read = async (): Promise<[ids: string[], stderr: string]> => {
    const { text, stderr, exitCode } = await its.webjobctl('--json', 'jobs');
    assert.ok(exitCode === 0 || exitCode === 1, stderr);
    const ids = text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line).jobId]));
    return [ids.sort(), stderr];
  };
  const [one, two] = [lineOf('2026-11-01 00:00:00', 'one'), lineOf('2026-11-01 00:00:01', 'two')];

  for (const [what, rest] of [
    ['nothing', Buffer.alloc(0)],
    ['zeros of a tape', Buffer.alloc(512)],
    ['garbage', Buffer.from('garbage')],
    ['half a header', Buffer.from([0x1f])],
    ['much garbage', Buffer.alloc(300_000, 0x55)],
  ] as const)
    it(`is read to the end of its last gzip member, followed by ${what}`, async () => {
      put('.2.gz', Buffer.concat([gzipSync(one), gzipSync(two), rest]));
      assert.deepEqual(await read(), [['one', 'two'], '']);
    });

  it('is read when gzip wrote a name in its header', async () => {
    const { stdout, status } = spawnSync('sh', [
      '-c',
      'printf %s "$1" > "$2/x" && gzip -c "$2/x" && rm "$2/x"',
      'sh',
      one,
      its.site.root,
    ]);
    assert.equal(status, 0);
    put('-20261101.gz', stdout);
    assert.deepEqual(await read(), [['one'], '']);
  });

  it('is read up to a damaged member, with a warning', async () => {
    const many = Array.from({ length: 5000 }, (_, at) => lineOf('2026-11-01 00:00:00', `job_${at}`)).join('');
    const packed = gzipSync(many);
    put('.2.gz', packed.subarray(0, packed.length / 2));
    const [ids, stderr] = await read();
    assert.ok(ids.length > 100 && ids.length < 5000, String(ids.length));
    assert.match(stderr, /nph-webjob\.log\.2\.gz is damaged/);
  });

  it('is read from .old and .zst, too', async () => {
    put('.old', one);
    put('.1.zst', zstdCompressSync(two));
    assert.deepEqual(await read(), [['one', 'two'], '']);
  });

  for (const ending of ['xz', 'lz4', 'bz2', 'lzma'])
    it(`causes a warning with its name where it ends in .${ending}`, async () => {
      put(`.1.${ending}`, 'packed');
      const [ids, stderr] = await read();
      assert.deepEqual(ids, []);
      assert.match(stderr, new RegExp(`^webjobctl: warning: nph-webjob\\.log\\.1\\.${ending} is skipped: `));
    });

  it('causes one warning in tail, which looks back further and further', async () => {
    put('.1.xz', 'packed');
    put('.1', `${one}no line\n`);
    const { stderr } = await its.webjobctl('tail');
    const warnings = stderr.trimEnd().split('\n');
    assert.equal(warnings.length, 2, stderr);
    assert.match(stderr, /is skipped: /);
    assert.match(stderr, /skipped: 1,/);
  });

  it('is read where its lines end in CR LF, without a CR in any message', async () => {
    put('.1', lineOf('2026-11-01 00:00:00', 'one', '\r\n') + lineOf('2026-11-01 00:00:01', 'two', '\r\n'));
    assert.deepEqual(await read(), [['one', 'two'], '']);
    assert.match((await its.webjobctl('--json', 'tail')).text, /"message":"Success"/);
  });
});

describe('the repeated hour when summer time ends', () => {
  const its = makeLockerSite();
  after(its.close);
  for (const [zone, local, first, second] of [
    ['Europe/Berlin', '2026-10-25 02:30:00', '2026-10-25T00:30:00Z', '2026-10-25T01:30:00Z'],
    ['America/New_York', '2026-11-01 01:00:00', '2026-11-01T05:00:00Z', '2026-11-01T06:00:00Z'],
    ['Australia/Lord_Howe', '2026-04-05 01:45:00', '2026-04-04T14:45:00Z', '2026-04-04T15:15:00Z'],
  ] as const)
    it(`is resolved by the job id in ${zone}`, async () => {
      const idOf = (at: string, pid: number): string => `server_1_${Date.parse(at) / 1000 - 2}_0000${pid}`;
      const ids = [idOf(first, 1), idOf(second, 2)];
      writeFileSync(its.site.logFile, [...ids.map((id) => lineOf(local, id)), lineOf(local, 'another_form')].join(''));
      const { text } = await runWebjobctl(['-c', its.site.propertiesFile, '--json', 'jobs'], {
        ...process.env,
        TZ: zone,
      });
      const at = new Map(
        text
          .trimEnd()
          .split('\n')
          .map((line) => JSON.parse(line))
          .map((job) => [job.jobId, Date.parse(job.at)]),
      );
      assert.deepEqual(
        [...ids, 'another_form'].map((id) => at.get(id)),
        [first, second, first].map((time) => Date.parse(time)),
      );
    });
});

describe('a place in a log, found by its time', () => {
  it('has every line of that time or later after it, and at most a block of older ones', () => {
    const root = mkdtempSync(join(tmpdir(), 'webjob-seek-'));
    const path = join(root, 'log');
    const times: string[] = [];
    const add = (count: number, second: (index: number) => number): void => {
      const start = times.length;
      for (let index = 0; index < count; index++)
        times.push(new Date(second(start + index) * 1000).toISOString().replace('T', ' ').slice(0, 19));
    };
    add(1500, (index) => 1_000_000_000 + index);
    // More lines of one second than two blocks hold.
    add(2500, () => 1_000_001_500);
    add(1500, (index) => 1_000_000_000 + index);
    const lines = times.map((time, index) => lineOf(time, `job_${index}`));
    // Malformed lines do not affect others.
    lines[3000] = `${lines[3000]}no line\n\n2001-09-09 no time\n`;
    writeFileSync(path, lines.join(''));
    const starts: number[] = [];
    let size = 0;
    for (const line of lines) {
      starts.push(size);
      size += line.length;
    }
    const fd = openSync(path, 'r');
    try {
      assert.deepEqual([findFirstTime(readBlock(fd, 0)), findLastTime(fd, size)], [times[0], times.at(-1)]);
      for (const time of [...new Set(times), '1999-01-01 00:00:00', '2099-01-01 00:00:00']) {
        const found = seekTime(fd, size, time);
        const first = times.findIndex((other) => other >= time);
        const wanted = first < 0 ? size : (starts[first] ?? 0);
        assert.ok(found === 0 || starts.includes(found), `${time}: ${found} is no start of a line`);
        assert.ok(found <= wanted, `${time}: ${found} is behind the first line of that time, at ${wanted}`);
        assert.ok(wanted - found <= BLOCK_BYTES + 300, `${time}: ${wanted - found} bytes of older lines`);
      }
    } finally {
      closeSync(fd);
      rmSync(root, { recursive: true });
    }
  });
});

describe('a log that is followed', () => {
  const root = mkdtempSync(join(tmpdir(), 'webjob-follow-'));
  after(() => rmSync(root, { recursive: true }));
  const path = join(root, 'log');
  /** The open files below a directory; others may be closed meanwhile by Node itself. */
  const listOpen = (folder: string): string[] =>
    readdirSync('/proc/self/fd').flatMap((fd) => {
      try {
        const target = readlinkSync(`/proc/self/fd/${fd}`);
        return target.startsWith(`${folder}/`) ? [target] : [];
      } catch {
        return [];
      }
    });
  /** The lines that arrive while `steps` change the log, one step after each line. */
  async function follow(text: string, ...steps: (() => void)[]): Promise<string[]> {
    writeFileSync(path, text);
    const reader = followLines(path, openSync(path, 'r'), 0);
    const lines: string[] = [];
    for (const step of [...steps, () => undefined]) {
      lines.push(String((await reader.next()).value));
      step();
    }
    await reader.return(undefined);
    assert.deepEqual(listOpen(root), [], 'a descriptor stays open');
    return lines;
  }

  it('is read from the start when it was emptied in place, without half of a lost line', async () => {
    const empty = (): void => {
      truncateSync(path);
      appendFileSync(path, 'two\n');
    };
    assert.deepEqual(await follow('one\nhalf of a line', empty, () => appendFileSync(path, 'three\n')), [
      'one',
      'two',
      'three',
    ]);
  });

  it('is read to its end when it was renamed, and then from the start of the next', async () => {
    const rename = (): void => {
      renameSync(path, `${path}.1`);
      appendFileSync(`${path}.1`, 'of a line\nnever ended');
      writeFileSync(path, 'two\n');
    };
    assert.deepEqual(
      await follow(
        'one\nhalf ',
        rename,
        () => undefined,
        () => appendFileSync(path, 'three\n'),
      ),
      ['one', 'half of a line', 'two', 'three'],
    );
  });

  it('is announced once, when everything on all servers was read', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'webjob-servers-'));
    const its = makeLockerSite({ UseGMT: 'Y' });
    const site = readSite(its.site.propertiesFile);
    const servers = ['one', 'two', 'three'].map((name) => {
      const logfilesDirectory = join(folder, name);
      mkdirSync(logfilesDirectory);
      // The second takes the longest to read.
      const count = name === 'two' ? 20_000 : 1;
      writeFileSync(join(logfilesDirectory, 'nph-webjob.log'), lineOf('2026-11-01 00:00:00', name).repeat(count));
      return { serverId: name, logfilesDirectory, enableCustody: false };
    });
    const said: number[] = [];
    let read = 0;
    const add = (): void => {
      for (const { logfilesDirectory } of servers)
        appendFileSync(join(logfilesDirectory, 'nph-webjob.log'), lineOf('2026-11-01 00:00:01', 'new'));
    };
    const onFollow = (): void => {
      said.push(read);
      setImmediate(add);
    };
    for await (const block of followLogs({ ...site, servers }, new Date(0), onFollow)) {
      read += block.length;
      if (read >= 20_003) break;
    }
    assert.deepEqual(said, [20_002]);
    // Each reader ends with its next line.
    add();
    rmSync(folder, { recursive: true });
    its.close();
  });

  it('is waited for while its name does not exist', async () => {
    const away = (): void => {
      rmSync(path);
      setTimeout(() => writeFileSync(path, 'two\n'), 500);
    };
    assert.deepEqual(await follow('one\n', away), ['one', 'two']);
  });
});

describe('the Node that webjobctl runs on', () => {
  it('has node:sqlite', () => {
    for (const version of ['v22.13.0', 'v22.22.1', 'v23.4.0', 'v24.0.0', 'v100.0.0'])
      assert.ok(canRun(version), version);
    for (const version of ['v18.20.0', 'v20.20.2', 'v21.7.0', 'v22.12.0', 'v23.3.0', 'v9.0.0'])
      assert.ok(!canRun(version), version);
  });

  const old = ['/usr/bin/node', '/usr/local/bin/node'].find(
    (node) => !canRun(spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout?.trim() || 'v99.0.0'),
  );
  it('is reported by every command, before it does anything', { skip: old === undefined }, () => {
    const program = join(import.meta.dirname, '..', '..', 'dist', 'webjobctl');
    for (const words of [
      ['--version'],
      ['configtest'],
      ['client', 'add', 'x', '--cert'],
      ['jobs'],
      ['completion'],
      [],
    ]) {
      const { status, stdout, stderr } = spawnSync(old ?? '', [program, ...words], { encoding: 'utf8' });
      const said = /^webjobctl: error: requires Node 22\.13 or later \(running v[\d.]+\)\nwebjobctl: hint: .*\n$/;
      assert.match(stderr, said, words.join(' '));
      assert.deepEqual([status, stdout], [4, '']);
    }
  });
});
