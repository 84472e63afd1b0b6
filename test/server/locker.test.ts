// storeUpload through its public interface: the contents of the directory after every success and
// failure.
import assert from 'node:assert/strict';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import {
  type ByteSource,
  type DepositPlan,
  formatReady,
  groupPaths,
  LockerFailure,
  type LockerFailureKind,
  parseReady,
  storeUpload,
} from '../../cgi/locker/index.ts';
import { age } from '../support/locker-upload.ts';
import { readFiles } from '../support/tree.ts';

const JOB_ID = 'server_1_1085355126_00723';
const STREAMS_TEXT = 'This is stdout.\nerr!\nVersion=webjob 1.4.0\n';
const LENGTHS = { out: 16, err: 5, env: 21 };
const WHOLE = { out: 'This is stdout.\n', err: 'err!\n', env: 'Version=webjob 1.4.0\n' };
const COMPLETE = { ...WHOLE, rdy: `Jid=${JOB_ID}\n` };
const OLD = { out: 'old stdout', err: 'old stderr', env: 'old env', rdy: 'Jid=server_1_1000000000_00001\n' };

let folder: string;
let base: string;
let oldUmask: number;

before(() => {
  oldUmask = process.umask(0o022);
});
after(() => process.umask(oldUmask));
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'webjob-locker-'));
  base = join(folder, 'client1_host.sh');
});
afterEach(() => rmSync(folder, { recursive: true }));

/** The files in the directory, by what follows the base. */
function standing(): Record<string, string> {
  const prefix = 'client1_host.sh.';
  const found = [...readFiles(folder)].map(([name, text]): [string, string] => [name.replace(prefix, ''), text]);
  return Object.fromEntries(found);
}

function plan(more: Partial<DepositPlan> = {}): DepositPlan {
  return { base, jobId: JOB_ID, lengths: LENGTHS, overwrite: false, ...more };
}

/** Supplies a text in small pieces; `onRead` is called before each. */
function source(text: string, onRead: (at: number) => void = () => {}): ByteSource {
  const bytes = Buffer.from(text);
  let at = 0;
  return {
    read(buffer) {
      onRead(at);
      const count = bytes.copy(buffer, 0, at, at + 4);
      at += count;
      return count;
    },
  };
}

/** Supplies a text until a system call fails after byte `last`. */
function sourceThatFails(code: string, last: number): ByteSource {
  const broken = Object.assign(new Error('read'), { code, syscall: 'read' });
  return source(STREAMS_TEXT, (at) => {
    if (at > last) throw broken;
  });
}

function assertFails(kind: LockerFailureKind, act: () => void): void {
  assert.throws(act, (error) => {
    assert.ok(error instanceof LockerFailure, String(error));
    assert.equal(error.kind, kind, error.message);
    return true;
  });
}

function put(files: Record<string, string>): void {
  for (const [extension, text] of Object.entries(files)) writeFileSync(`${base}.${extension}`, text);
}

/** A source that must not be read. */
const UNREAD: ByteSource = {
  read() {
    throw new Error('the body was read');
  },
};

describe('a new upload', () => {
  it('consists of three streams and a .rdy that names the job', () => {
    storeUpload(plan(), source(STREAMS_TEXT));
    assert.deepEqual(standing(), COMPLETE);
    assert.equal(parseReady(formatReady(JOB_ID)), JOB_ID);
  });

  it('has a .rdy dated to its announcement, however long it took', () => {
    const late = new Date(Date.now() - 3_000_000);
    storeUpload(
      plan(),
      source(STREAMS_TEXT, () => utimesSync(`${base}.lck`, late, late)),
    );
    assert.ok(Math.abs(statSync(`${base}.rdy`).mtimeMs - Date.now()) < 60_000);
  });

  it('may have empty streams', () => {
    storeUpload(plan({ lengths: { out: 0, err: 0, env: 0 } }), source(''));
    assert.deepEqual(standing(), { out: '', err: '', env: '', rdy: `Jid=${JOB_ID}\n` });
  });

  it('takes not one byte more than announced', () => {
    const all = source(`${STREAMS_TEXT}more`);
    const asked: number[] = [];
    storeUpload(plan(), {
      read(buffer) {
        asked.push(buffer.length);
        return all.read(buffer);
      },
    });
    assert.equal(standing().env, WHOLE.env);
    assert.ok(Math.max(...asked) <= 21, `asked for ${asked}`);
  });

  it('has files of mode 0644 and directories of mode 0755', () => {
    base = join(folder, '2004/05/23/client1_host.sh');
    storeUpload(plan(), source(STREAMS_TEXT));
    for (const path of ['2004', '2004/05', '2004/05/23']) {
      assert.equal(statSync(join(folder, path)).mode & 0o7777, 0o755, path);
    }
    for (const path of readdirSync(join(folder, '2004/05/23'))) {
      assert.equal(statSync(join(folder, '2004/05/23', path)).mode & 0o7777, 0o644, path);
    }
    assert.equal(readdirSync(join(folder, '2004/05/23')).length, 4);
  });

  it('holds a lock with its ready line while it arrives', () => {
    const seen = new Set<string>();
    storeUpload(
      plan(),
      source(STREAMS_TEXT, () => {
        seen.add(readFileSync(`${base}.lck`, 'latin1'));
        assert.equal(existsSync(`${base}.rdy`), false);
      }),
    );
    assert.deepEqual([...seen], [`Jid=${JOB_ID}\n`]);
  });

  it('passes its complete streams to beforeReady, not yet announced', () => {
    let seen: Record<string, string> = {};
    storeUpload(plan(), source(STREAMS_TEXT), (paths) => {
      assert.deepEqual(paths, groupPaths(base));
      seen = standing();
    });
    assert.deepEqual(seen, { ...WHOLE, lck: `Jid=${JOB_ID}\n` });
  });

  it('is not announced when beforeReady throws, and the exception is passed on', () => {
    const thrown = new Error('the hook said no');
    assert.throws(
      () =>
        storeUpload(plan(), source(STREAMS_TEXT), () => {
          throw thrown;
        }),
      thrown,
    );
    assert.deepEqual(standing(), WHOLE);
  });

  it('keeps what arrived of a truncated body, without .rdy', () => {
    for (const [count, kept] of [
      [0, { out: '' }],
      [10, { out: 'This is st' }],
      [16, { out: WHOLE.out, err: '' }],
      [18, { out: WHOLE.out, err: 'er' }],
      [41, { ...WHOLE, env: 'Version=webjob 1.4.0' }],
    ] as const) {
      assertFails('short', () => storeUpload(plan(), source(STREAMS_TEXT.slice(0, count))));
      assert.deepEqual(standing(), kept, `${count} bytes`);
      for (const name of readdirSync(folder)) unlinkSync(join(folder, name));
    }
  });

  it('keeps what arrived when a read fails, without .rdy', () => {
    assertFails('failed', () => storeUpload(plan(), sourceThatFails('EIO', 16)));
    assert.deepEqual(standing(), { out: WHOLE.out, err: 'err!' });
  });

  it('is refused as full before its first byte when it cannot fit', () => {
    assertFails('full', () => storeUpload(plan({ lengths: { out: 2 ** 52, err: 0, env: 0 } }), UNREAD));
    assert.deepEqual(standing(), {});
  });

  it('fails where a directory of its path is a file, or a name is too long', () => {
    writeFileSync(join(folder, 'file'), 'x');
    assertFails('failed', () => storeUpload(plan({ base: join(folder, 'file/upload') }), UNREAD));
    assertFails('name', () => storeUpload(plan({ base: join(folder, 'x'.repeat(300)) }), UNREAD));
    assert.deepEqual(standing(), { file: 'x' });
  });
});

describe('a name that is taken', () => {
  for (const extension of ['out', 'err', 'env', 'rdy']) {
    it(`is refused because of a .${extension}, and nothing is touched`, () => {
      put({ [extension]: 'old' });
      assertFails('exists', () => storeUpload(plan(), UNREAD));
      assert.deepEqual(standing(), { [extension]: 'old' });
    });

    it(`is refused because of a dangling link .${extension}, and nothing is touched`, () => {
      symlinkSync(join(folder, 'nowhere'), `${base}.${extension}`);
      assertFails('exists', () => storeUpload(plan(), UNREAD));
      assert.deepEqual(standing(), { [extension]: `-> ${join(folder, 'nowhere')}` });
    });
  }

  it('is refused a second time, and the first upload stays complete', () => {
    storeUpload(plan(), source(STREAMS_TEXT));
    assertFails('exists', () => storeUpload(plan({ jobId: 'other' }), UNREAD));
    assert.deepEqual(standing(), COMPLETE);
  });
});

describe('an upload that already exists', () => {
  it('is not stored again, and its body is read to the end', () => {
    storeUpload(plan(), source(STREAMS_TEXT));
    const { ino } = statSync(`${base}.out`);
    const read: number[] = [];
    const { isRepeat } = storeUpload(
      plan({ overwrite: true }),
      source(STREAMS_TEXT, (at) => read.push(at)),
    );
    assert.deepEqual([isRepeat, statSync(`${base}.out`).ino, standing()], [true, ino, COMPLETE]);
    assert.ok((read.at(-1) ?? 0) >= STREAMS_TEXT.length - 4);
  });

  for (const extension of ['out', 'err', 'env', 'rdy'] as const) {
    it(`differs from one with a link to the same bytes as its .${extension}`, () => {
      storeUpload(plan(), source(STREAMS_TEXT));
      mkdirSync(join(folder, 'elsewhere'));
      renameSync(`${base}.${extension}`, join(folder, 'elsewhere', 'same'));
      symlinkSync(join(folder, 'elsewhere', 'same'), `${base}.${extension}`);
      assertFails('exists', () => storeUpload(plan(), UNREAD));
    });
  }

  it('leaves no descriptor open, whatever it is compared with', () => {
    storeUpload(plan(), source(STREAMS_TEXT));
    const open = (): number => readdirSync('/proc/self/fd').length;
    const before = open();
    assert.equal(storeUpload(plan(), source(STREAMS_TEXT)).isRepeat, true);
    assertFails('exists', () => storeUpload(plan({ jobId: 'server_1_1085355126_00724' }), UNREAD));
    assertFails('exists', () => storeUpload(plan({ jobId: 'longer_than_the_first_one_is' }), UNREAD));
    for (const stream of ['out', 'err', 'env'])
      assertFails('exists', () => storeUpload(plan({ lengths: { ...LENGTHS, [stream]: 1 } }), UNREAD));
    assertFails('short', () => storeUpload(plan(), source(STREAMS_TEXT.slice(0, 18))));
    assertFails('failed', () => storeUpload(plan(), sourceThatFails('EIO', 16)));
    assertFails('exists', () => storeUpload(plan(), source(STREAMS_TEXT.replace('1.4.0', '1.4.1'))));
    renameSync(`${base}.env`, `${base}.other`);
    mkdirSync(`${base}.env`);
    assertFails('exists', () => storeUpload(plan(), UNREAD));
    assert.equal(open(), before);
  });
});

describe('a replacement', () => {
  const replacement = (): DepositPlan => plan({ overwrite: true });

  it('leaves the old upload complete until it is complete itself', () => {
    put(OLD);
    const seen: Record<string, string>[] = [];
    storeUpload(
      replacement(),
      source(STREAMS_TEXT, () => seen.push(standing())),
      () => assert.deepEqual(standing(), { ...WHOLE, lck: `Jid=${JOB_ID}\n` }),
    );
    assert.ok(seen.length > 3);
    for (const { out, err, env, rdy } of seen) assert.deepEqual({ out, err, env, rdy }, OLD);
    assert.deepEqual(standing(), COMPLETE);
  });

  it('leaves the old upload complete, and what arrived beside it, when it breaks off', () => {
    put(OLD);
    assertFails('short', () => storeUpload(replacement(), source(STREAMS_TEXT.slice(0, 18))));
    assert.deepEqual(standing(), { ...OLD, 'out.new': WHOLE.out, 'err.new': 'er' });
    assertFails('failed', () => storeUpload(replacement(), sourceThatFails('EIO', -1)));
    assert.deepEqual(standing(), { ...OLD, 'out.new': '', 'err.new': 'er' });
  });

  it('leaves the old upload complete, and nothing else, when it finds no room', () => {
    put(OLD);
    assertFails('full', () => storeUpload(replacement(), sourceThatFails('ENOSPC', 18)));
    assert.deepEqual(standing(), OLD);
  });

  it('takes over what an earlier one left', () => {
    put({ ...OLD, 'out.new': 'left', 'err.new': 'left', 'env.new': 'left' });
    storeUpload(replacement(), source(STREAMS_TEXT));
    assert.deepEqual(standing(), COMPLETE);
  });

  it('completes an upload that broke off', () => {
    put({ out: 'old stdout', err: 'o' });
    storeUpload(replacement(), source(STREAMS_TEXT));
    assert.deepEqual(standing(), COMPLETE);
  });

  it('is a new upload when there is nothing to replace', () => {
    storeUpload(replacement(), source(STREAMS_TEXT));
    assert.deepEqual(standing(), COMPLETE);
  });

  it('discards nothing once the old upload has lost its .rdy', () => {
    put(OLD);
    // A directory in the way makes the second rename fail, as a full disk may.
    unlinkSync(`${base}.err`);
    mkdirSync(`${base}.err`);
    assertFails('failed', () => storeUpload(replacement(), source(STREAMS_TEXT)));
    assert.deepEqual(standing(), { out: WHOLE.out, 'err.new': WHOLE.err, env: OLD.env, 'env.new': WHOLE.env });
  });
});

describe('a lock', () => {
  it('makes a living writer refuse the next one, and nothing is touched', () => {
    put({ lck: 'Jid=other\n' });
    age([`${base}.lck`], 3590);
    for (const overwrite of [false, true]) {
      assertFails('exists', () => storeUpload(plan({ overwrite }), UNREAD));
      assert.deepEqual(standing(), { lck: 'Jid=other\n' });
    }
  });

  it('is taken over when it is older than an hour', () => {
    put({ lck: 'Jid=other\n' });
    age([`${base}.lck`]);
    storeUpload(plan(), source(STREAMS_TEXT));
    assert.deepEqual(standing(), COMPLETE);
  });

  it('is taken over only by a replacement when it was abandoned beside streams', () => {
    put({ lck: 'Jid=other\n', out: 'old stdout' });
    age([`${base}.lck`, `${base}.out`]);
    assertFails('exists', () => storeUpload(plan(), UNREAD));
    assert.deepEqual(standing(), { out: 'old stdout' });
    storeUpload(plan({ overwrite: true }), source(STREAMS_TEXT));
    assert.deepEqual(standing(), COMPLETE);
  });

  for (const extension of ['out', 'err', 'env', 'out.new', 'err.new', 'env.new']) {
    it(`stays valid while its writer writes .${extension}`, () => {
      const names = ['lck', 'out', 'err', 'env', 'out.new', 'err.new', 'env.new'];
      put(Object.fromEntries(names.map((name) => [name, 'x'])));
      age(names.filter((name) => name !== extension).map((name) => `${base}.${name}`));
      assertFails('exists', () => storeUpload(plan({ overwrite: true }), UNREAD));
      assert.equal(Object.keys(standing()).length, names.length);
    });
  }

  it('ends its upload without .rdy when another process took it, and the other lock stays', () => {
    const steal = (at: number): void => {
      if (at !== 16) return;
      unlinkSync(`${base}.lck`);
      writeFileSync(`${base}.lck`, 'Jid=thief\n');
    };
    assertFails('failed', () => storeUpload(plan(), source(STREAMS_TEXT, steal)));
    assert.deepEqual(standing(), { ...WHOLE, lck: 'Jid=thief\n' });
  });

  it('ends its upload without .rdy when it was removed', () => {
    assertFails('failed', () => storeUpload(plan(), source(STREAMS_TEXT), () => unlinkSync(`${base}.lck`)));
    assert.deepEqual(standing(), WHOLE);
  });
});

describe('a planted link', () => {
  let target: string;
  beforeEach(() => {
    mkdirSync(join(folder, 'elsewhere'));
    target = join(folder, 'elsewhere/precious');
    writeFileSync(target, 'precious');
  });

  /** Nothing was written through the link. */
  function assertUntouched(): void {
    assert.equal(readFileSync(target, 'latin1'), 'precious');
    assert.deepEqual(readdirSync(join(folder, 'elsewhere')), ['precious']);
  }

  for (const to of ['a file', 'nothing']) {
    for (const extension of ['out', 'err', 'env', 'rdy', 'out.new', 'err.new', 'env.new']) {
      it(`is replaced, not followed, when .${extension} leads to ${to}`, () => {
        symlinkSync(to === 'a file' ? target : `${target}.not`, `${base}.${extension}`);
        // Beside an old upload, so that the .new names are used.
        if (extension !== 'err') put({ err: 'old stderr' });
        storeUpload(plan({ overwrite: true }), source(STREAMS_TEXT));
        assertUntouched();
        for (const name of ['out', 'err', 'env', 'rdy']) assert.ok(lstatSync(`${base}.${name}`).isFile(), name);
        assert.equal(readFileSync(`${base}.out`, 'latin1'), WHOLE.out);
      });
    }

    it(`counts as a lock when .lck leads to ${to}`, () => {
      symlinkSync(to === 'a file' ? target : `${target}.not`, `${base}.lck`);
      assertFails('exists', () => storeUpload(plan(), UNREAD));
      assertUntouched();
      assert.deepEqual(Object.keys(standing()).sort(), ['elsewhere/precious', 'lck']);
    });
  }

  for (const [extension, at] of [
    ['err', 4],
    ['env', 16],
  ] as const) {
    it(`is not followed when .${extension} appears while an upload arrives`, () => {
      const act = () =>
        storeUpload(
          plan(),
          source(STREAMS_TEXT, (read) => {
            if (read === at) symlinkSync(target, `${base}.${extension}`);
          }),
        );
      assertFails('exists', act);
      assertUntouched();
      assert.equal(existsSync(`${base}.rdy`), false);
      assert.equal(existsSync(`${base}.lck`), false);
    });
  }

  it('is replaced by the real .rdy when it appears while an upload arrives', () => {
    storeUpload(plan(), source(STREAMS_TEXT), () => symlinkSync(target, `${base}.rdy`));
    assertUntouched();
    assert.ok(lstatSync(`${base}.rdy`).isFile());
    assert.equal(readFileSync(`${base}.rdy`, 'latin1'), `Jid=${JOB_ID}\n`);
  });
});
