// Random changes to lockers of several kinds and to their custody records: verify finds each of
// them, reports nothing else, and finds nothing where nothing was changed. Most are judged in this
// process by the function behind the command, one of each kind by the command.
import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { appendCustody, custodyPath, listCustodyFiles, segmentFolder } from '../../cgi/locker/index.ts';
import { compareCheckpoints } from '../../evidence/checkpoint.ts';
import { formatGenesis } from '../../evidence/events.ts';
import { Evidence, type EvidenceSite } from '../../evidence/evidence.ts';
import type { Finding } from '../../evidence/finding.ts';
import { formatTreeHead } from '../../evidence/tlog.ts';
import { rootsOf } from '../../evidence/tree.ts';
import { verifySite } from '../../evidence/verify.ts';
import { signerOf } from '../../notes/ed25519.ts';
import { signNote } from '../../notes/note.ts';
import { randomNumbers } from '../support/locker-kills.ts';
import { runWebjobctl } from '../support/locker-site.ts';
import { EXTENSIONS_KEPT, type Planted, plantGroup } from '../support/verify-site.ts';

const MUTATIONS = Number(process.env.WEBJOB_TEST_MUTATIONS ?? 1000);
const SEED = Number(process.env.WEBJOB_TEST_SEED ?? 20040523);
/** An unchanged locker is verified after this many changes. */
const PRISTINE_EVERY = 50;

const random = randomNumbers(SEED);
const pick = (count: number): number => Math.floor(random() * count);
const from = <Type>(values: readonly Type[]): Type => values[pick(values.length)] as Type;

/** The new content of a file; undefined when it is removed. */
type Change = Map<string, Buffer | undefined>;

/** A locker with custody records, and its original files. */
class Ground {
  /** In memory where possible, because the disk does not matter here. */
  readonly root = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'webjob-tamper-'));
  readonly incomingDirectory = join(this.root, 'incoming');
  readonly logfilesDirectory = join(this.root, 'logfiles');
  readonly #pristine = new Map<string, Buffer>();
  /** Uploads that are in the locker. */
  readonly names: string[] = [];
  readonly custody: string[] = [];
  /** The size at which a custody record continues in another file. */
  segmentLimit: number | undefined;
  #witnessFolder: string | undefined;

  constructor(fill: (ground: Ground) => void) {
    for (const folder of [this.incomingDirectory, this.logfilesDirectory]) mkdirSync(folder, { mode: 0o755 });
    fill(this);
    for (const { file } of listCustodyFiles(this.logfilesDirectory))
      this.custody.push(join(this.logfilesDirectory, file));
    for (const path of [...this.custody, ...this.streams, ...this.ready]) this.#pristine.set(path, readFileSync(path));
  }

  path(name: string, extension: string): string {
    return join(this.incomingDirectory, `${name}.${extension}`);
  }

  get streams(): string[] {
    return this.names.flatMap((name) => ['out', 'err', 'env'].map((stream) => this.path(name, stream)));
  }

  get ready(): string[] {
    return this.names.map((name) => this.path(name, 'rdy'));
  }

  plant(name: string, more: Partial<Planted> = {}): void {
    mkdirSync(dirname(this.path(name, 'out')), { recursive: true, mode: 0o755 });
    const { incomingDirectory, logfilesDirectory } = this;
    const { segmentLimit } = this;
    const streams = { out: `out of ${name}`, err: `err of ${name}` };
    plantGroup({ incomingDirectory, logfilesDirectory, segmentLimit, name, ...streams, ...more });
    if (!this.names.includes(name)) this.names.push(name);
  }

  note(serverId: string, facts: { event: string; [name: string]: unknown }): void {
    const { segmentLimit } = this;
    const path = custodyPath(this.logfilesDirectory, serverId);
    appendCustody(path, { time: new Date(), ...facts }, { mayCreate: true, segmentLimit });
  }

  /** Removes an upload with a record, as webjobctl prune does. */
  prune(name: string): void {
    this.note('webjobctl', { event: 'prune', rule: 'any', names: [name], groups: [{ name, files: {} }] });
    for (const extension of EXTENSIONS_KEPT) rmSync(this.path(name, extension));
    this.names.splice(this.names.indexOf(name), 1);
  }

  /** What webjobctl init writes. */
  begin(serverId: string): void {
    writeFileSync(custodyPath(this.logfilesDirectory, serverId), formatGenesis(serverId), { mode: 0o644 });
  }

  /** Lets root see the custody records as they are now. */
  witness(): void {
    this.#witnessFolder = join(this.root, 'config');
    const evidence = new Evidence(this.#site());
    try {
      evidence.tellWitness();
    } finally {
      evidence.close();
    }
  }

  #site(): EvidenceSite {
    const { incomingDirectory, logfilesDirectory } = this;
    const server = { logfilesDirectory, serverId: 'server_1', witnessFolder: this.#witnessFolder };
    return { incomingDirectory, servers: [server] };
  }

  bytesOf(path: string): Buffer {
    return this.#pristine.get(path) ?? Buffer.alloc(0);
  }

  lines(path: string): string[] {
    return this.bytesOf(path).toString('latin1').split('\n').slice(0, -1);
  }

  verify(): Finding[] {
    return [...verifySite({ ...this.#site(), contents: true })];
  }

  /**
   * Makes a change, calls `look`, and restores everything. Undefined when the change has no effect.
   */
  async tamper<Result>(change: Change, look: () => Result | Promise<Result>): Promise<Result | undefined> {
    const real = [...change].filter(([path, bytes]) => bytes === undefined || !bytes.equals(this.bytesOf(path)));
    if (real.length === 0) return undefined;
    for (const [path, bytes] of real) {
      if (bytes === undefined) rmSync(path);
      else writeFileSync(path, bytes);
    }
    const result = await look();
    for (const [path] of real) writeFileSync(path, this.bytesOf(path), { mode: 0o644 });
    return result;
  }

  /** Whether a finding is about something that was changed. */
  isAbout(change: Change, { place }: Pick<Finding, 'place'>): boolean {
    // A damaged custody record may affect any upload.
    if (this.custody.some((path) => change.has(path))) return true;
    const nameOf = (path: string): string => path.replace(/\.[a-z]+$/, '');
    return [...change.keys()].some((path) => nameOf(place) === nameOf(path.slice(this.incomingDirectory.length + 1)));
  }
}

/**
 * Lockers with differences that a verifier could confuse. The last record of each custody record is
 * confirmed by the locker: a note that was cut off at the end is only noticed with a checkpoint.
 */
const SHAPES: Record<string, (ground: Ground) => void> = {
  'two uploads, with notes between them': (ground) => {
    ground.note('server_1', { event: 'remark', said: 'before a deposit' });
    ground.plant('client1_job0', { out: '' });
    ground.note('server_1', { event: 'remark', said: 'before another' });
    ground.plant('client1_job1', { out: 'out '.repeat(40), err: '' });
  },
  'one upload alone, with other digests': (ground) => ground.plant('client1_job0', { hashType: 'SHA256' }),
  'uploads in folders, one of which replaced another': (ground) => {
    ground.plant('client1/host', { jobId: 'server_1_1085355126_00001' });
    ground.plant('client2/host');
    ground.plant('client1/host', { jobId: 'server_1_1085355127_00002', out: 'a later one', overwrite: true });
  },
  'uploads to two servers': (ground) => {
    ground.plant('client1_job0');
    ground.plant('client1_job1', { serverId: 'server_2' });
    ground.plant('client1_job2');
    ground.plant('client1_job3', { serverId: 'server_2' });
  },
  'records in segments, with genesis and witness': (ground) => {
    ground.segmentLimit = 1500;
    for (const serverId of ['server_1', 'server_2']) ground.begin(serverId);
    for (let index = 0; index < 8; index++)
      ground.plant(`client1_job${index}`, { serverId: index % 3 === 0 ? 'server_2' : 'server_1' });
    ground.prune('client1_job2');
    ground.plant('client1_job1', { jobId: 'server_1_1085355127_00002', out: 'a later one', overwrite: true });
    // The last segment of a server has more than the record that binds it.
    for (let index = 8; existsSync(segmentFolder(custodyPath(ground.logfilesDirectory, 'server_2'))) === false; index++)
      ground.plant(`client1_job${index}`, { serverId: 'server_2' });
    ground.plant('client1_last1');
    ground.plant('client1_last2', { serverId: 'server_2' });
    if (process.getuid?.() === 0) ground.witness();
  },
  'what is left when others were pruned': (ground) => {
    for (const index of [1, 2, 0]) ground.plant(`client1_job${index}`);
    ground.note('webjobctl', { event: 'hold', kind: 'client', id: 'client1', reason: 'a case' });
    ground.prune('client1_job1');
    ground.note('webjobctl', { event: 'release', kind: 'client', id: 'client1', reason: 'over' });
    ground.prune('client1_job2');
  },
};

const flipped = (bytes: Buffer): Buffer => {
  const copy = Buffer.from(bytes);
  const at = pick(copy.length);
  copy[at] = (copy[at] ?? 0) ^ (1 << pick(8));
  return copy;
};
const cut = (bytes: Buffer): Buffer => bytes.subarray(0, pick(bytes.length));
const grown = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.from([pick(256)])]);
const holed = (bytes: Buffer): Buffer => {
  const at = pick(bytes.length);
  return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + pick(bytes.length - at))]);
};
const single = (ground: Ground, path: string, change: (bytes: Buffer) => Buffer | undefined): Change =>
  new Map([[path, change(ground.bytesOf(path))]]);
const swapped = (ground: Ground, files: readonly string[]): Change => {
  const [one, other] = [from(files), from(files)];
  return new Map([
    [one, ground.bytesOf(other)],
    [other, ground.bytesOf(one)],
  ]);
};
/** The custody record with other lines. */
const relined = (ground: Ground, path: string, change: (lines: string[]) => string[]): Change => {
  const text = change(ground.lines(path)).map((line) => `${line}\n`);
  return new Map([[path, Buffer.from(text.join(''), 'latin1')]]);
};

/** Another text between two quotes, or another digit. */
function edited(line: string): string {
  const values = [...line.matchAll(/:"([^"]+)"|[:,[](\d+)/g)];
  const { index, 0: found } = from(values);
  const at = index + found.length - (found.endsWith('"') ? 2 : 1);
  return `${line.slice(0, at)}${line[at] === '7' ? '8' : '7'}${line.slice(at + 1)}`;
}

/** A change to one of the custody records. */
type Line = (lines: string[]) => string[];
const custodyKind = (change: () => Line) => (ground: Ground) => relined(ground, from(ground.custody), change());

const KINDS: Record<string, (ground: Ground) => Change> = {
  'a bit of a stream': (ground) => single(ground, from(ground.streams), flipped),
  'the end of a stream': (ground) => single(ground, from(ground.streams), cut),
  'a byte behind a stream': (ground) => single(ground, from(ground.streams), grown),
  'a stream': (ground) => single(ground, from(ground.streams), () => undefined),
  'two streams for each other': (ground) => swapped(ground, ground.streams),
  'a bit of a .rdy': (ground) => single(ground, from(ground.ready), flipped),
  'the end of a .rdy': (ground) => single(ground, from(ground.ready), cut),
  'a .rdy': (ground) => single(ground, from(ground.ready), () => undefined),
  'two .rdy for each other': (ground) => swapped(ground, ground.ready),
  'an upload': (ground) => removal(ground, [from(ground.names)]),
  'two uploads for each other': (ground) => {
    const [one, other] = [from(ground.names), from(ground.names)];
    const copies = (to: string, origin: string): [string, Buffer][] =>
      EXTENSIONS_KEPT.map((extension) => [ground.path(to, extension), ground.bytesOf(ground.path(origin, extension))]);
    return new Map([...copies(one, other), ...copies(other, one)]);
  },
  'a bit of a custody record': (ground) => single(ground, from(ground.custody), flipped),
  'the end of a custody record': (ground) => single(ground, from(ground.custody), cut),
  'a part of a custody record': (ground) => single(ground, from(ground.custody), holed),
  'a byte behind a custody record': (ground) => single(ground, from(ground.custody), grown),
  'a custody file': (ground) => single(ground, from(ground.custody), () => undefined),
  'two custody files for each other': (ground) => swapped(ground, ground.custody),
  'a line': custodyKind(() => (all) => all.toSpliced(pick(all.length), 1)),
  'two lines for each other': custodyKind(() => (all) => {
    const [one, other] = [pick(all.length), pick(all.length)];
    return all.with(one, all[other] ?? '').with(other, all[one] ?? '');
  }),
  'the order of the lines': custodyKind(
    () => (all) =>
      all
        .map((line) => ({ line, at: random() }))
        .sort((a, b) => a.at - b.at)
        .map(({ line }) => line),
  ),
  'a line for a copy of another': custodyKind(() => (all) => all.with(pick(all.length), from(all))),
  'a copy of a line among the others': custodyKind(() => (all) => all.toSpliced(pick(all.length + 1), 0, from(all))),
  'a line for one of another custody record': (ground) => {
    const other = from(ground.lines(from(ground.custody)));
    return relined(ground, from(ground.custody), (all) => all.with(pick(all.length), other));
  },
  'a value in a line': custodyKind(() => (all) => {
    const index = pick(all.length);
    return all.with(index, edited(all[index] ?? ''));
  }),
};

const removal = (ground: Ground, names: readonly string[]): Change =>
  new Map(names.flatMap((name) => EXTENSIONS_KEPT.map((extension) => [ground.path(name, extension), undefined])));

/** A record edited by an attacker who can compute its checksum. */
function forged(line: string): string {
  const text = edited(line.slice(0, line.lastIndexOf(',"sum":')));
  return `${text},"sum":"${createHash('sha256').update(text).digest('hex')}"}`;
}

for (const [shape, fill] of Object.entries(SHAPES)) {
  describe(`${Math.ceil(MUTATIONS / Object.keys(SHAPES).length)} changes (seed ${SEED}) to ${shape}`, () => {
    let ground: Ground;
    before(() => {
      ground = new Ground(fill);
    });
    after(() => rmSync(ground.root, { recursive: true }));

    it('are all found, and nothing else is', async (t) => {
      const counts: Record<string, number> = {};
      const wanted = MUTATIONS / Object.keys(SHAPES).length;
      for (let made = 0; made < wanted; ) {
        if (made % PRISTINE_EVERY === 0) assert.deepEqual(ground.verify(), [], 'nothing was changed');
        const [kind, make] = from(Object.entries(KINDS)) as [string, (ground: Ground) => Change];
        const change = make(ground);
        const findings = await ground.tamper(change, () => ground.verify());
        if (findings === undefined) continue;
        made++;
        counts[kind] = (counts[kind] ?? 0) + 1;
        assert.notEqual(findings.length, 0, `${made}: ${kind} was changed: ${describeChange(change)}`);
        const others = findings.filter((finding) => !ground.isAbout(change, finding));
        assert.deepEqual(others, [], `${made}: ${kind}: ${describeChange(change)}`);
      }
      assert.deepEqual(ground.verify(), []);
      t.diagnostic(JSON.stringify(counts));
    });
  });
}

describe('webjobctl verify', () => {
  const ground = new Ground(SHAPES['uploads to two servers'] ?? assert.fail());
  after(() => rmSync(ground.root, { recursive: true }));

  async function command(): Promise<string[]> {
    const config = join(ground.root, 'nph-webjob.cfg');
    writeFileSync(config, `BaseDirectory=${ground.root}\nServerId=server_1\n`);
    // The witness would reveal more than the function with which this is compared.
    rmSync(join(ground.root, 'config'), { recursive: true, force: true });
    const { text, exitCode, stderr } = await runWebjobctl(['--config', config, '--json', 'verify']);
    const lines = text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Finding]));
    assert.equal(lines.pop()?.kind, 'summary', stderr);
    assert.equal(exitCode, lines.length === 0 ? 0 : 1, stderr);
    return namesOf(lines);
  }

  it('finds what its function finds, with one change of every kind', async () => {
    assert.deepEqual(await command(), []);
    for (const [kind, make] of Object.entries(KINDS)) {
      const look = async (): Promise<[string[], string[]]> => [await command(), namesOf(ground.verify())];
      let both: [string[], string[]] | undefined;
      while (!both) both = await ground.tamper(make(ground), look);
      assert.ok(both[1].length > 0, kind);
      assert.deepEqual(both[0], both[1], kind);
    }
  });
});

const namesOf = (findings: readonly Finding[]): string[] =>
  findings.map(({ kind, place }) => `${kind} ${place}`).sort();

describe('a checkpoint', () => {
  const ground = new Ground(SHAPES['two uploads, with notes between them'] ?? assert.fail());
  const [custody = ''] = ground.custody;
  const site = new Ground(SHAPES['uploads to two servers'] ?? assert.fail());
  const another = site.custody[1] ?? '';
  const key = generateKeyPairSync('ed25519');
  const checkpoint = join(ground.root, 'checkpoint');
  before(() => {
    const { size, roots } = rootsOf(ground.logfilesDirectory, [basename(custody)], [readLineCount(custody)]);
    const head = { origin: 'example.org/webjob/server_1', size, root: roots.get(size) ?? assert.fail() };
    writeFileSync(checkpoint, signNote(formatTreeHead(head), [signerOf(head.origin, key.privateKey)]));
  });
  after(() => {
    for (const { root } of [ground, site]) rmSync(root, { recursive: true });
  });

  /**
   * Changes that only a checkpoint reveals: the last records, rewritten with valid checksums, or
   * removed with their uploads.
   */
  const SKILLED: Record<string, () => Change> = {
    'a record and its sum': () =>
      relined(ground, custody, (all) => {
        const index = pick(all.length);
        return all.with(index, forged(all[index] ?? ''));
      }),
    'the last uploads and their records': () => {
      const kept = pick(ground.names.length);
      return new Map([
        ...relined(ground, custody, (all) => all.slice(0, kept * 2)),
        ...removal(ground, ground.names.slice(kept)),
      ]);
    },
    'the custody record': () => single(ground, custody, () => undefined),
    'a bit': () => single(ground, custody, flipped),
    'a whole custody record for that of another server': () => single(ground, custody, () => readFileSync(another)),
  };

  it('finds the changes of a knowledgeable attacker', async () => {
    const look = (): Finding[] => [
      ...compareCheckpoints(checkpoint, { key: key.publicKey }, [ground.logfilesDirectory]),
    ];
    assert.deepEqual(look(), []);
    for (let made = 0; made < MUTATIONS / 20; made++) {
      for (const [kind, make] of Object.entries(SKILLED)) {
        const findings = await ground.tamper(make(), look);
        assert.equal(findings?.length, 1, kind);
        assert.match(findings?.[0]?.kind ?? '', /^checkpoint-(?:changed|truncated)$/);
      }
    }
    assert.ok(statSync(checkpoint).size > 0);
    assert.deepEqual(look(), []);
  });
});

function readLineCount(path: string): number {
  return readFileSync(path, 'latin1').split('\n').length - 1;
}

function describeChange(change: Change): string {
  return [...change]
    .map(([path, bytes]) => `${path}: ${bytes === undefined ? 'gone' : bytes.toString('latin1')}`)
    .join('\n');
}
