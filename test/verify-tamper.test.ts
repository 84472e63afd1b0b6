// Tens of thousands of random changes to a locker and its custody record: verify finds each of them, tells of nothing else, and finds nothing
// where nothing was changed.
import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { appendCustody, custodyPath } from '../cgi/locker/index.ts';
import { compareCheckpoints, formatCheckpoint } from '../evidence/checkpoint.ts';
import type { Finding } from '../evidence/finding.ts';
import { verifySite } from '../evidence/verify.ts';
import { randomNumbers } from './locker-kills.ts';
import { EXTENSIONS_KEPT, plantGroup } from './verify-site.ts';

const MUTATIONS = Number(process.env.WEBJOB_TEST_MUTATIONS ?? 20_000);
const SEED = Number(process.env.WEBJOB_TEST_SEED ?? 20040523);
const GROUPS = 2;
/** A changed locker is put right again, and looked at, after so many changes. */
const PRISTINE_EVERY = 100;

/** In memory where that is possible: the disk has nothing to do with it. */
const root = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'webjob-tamper-'));
const incomingDirectory = join(root, 'incoming');
const custody = custodyPath(root, 'server_1');
const key = generateKeyPairSync('ed25519');
const checkpoint = join(root, 'checkpoint');
const pristine = new Map<string, Buffer>();
const names = Array.from({ length: GROUPS }, (_, index) => `client1_job${index}`);
const streamFiles = names.flatMap((name) =>
  ['out', 'err', 'env'].map((stream) => join(incomingDirectory, `${name}.${stream}`)),
);
const readyFiles = names.map((name) => join(incomingDirectory, `${name}.rdy`));
const random = randomNumbers(SEED);
const pick = (count: number): number => Math.floor(random() * count);
const from = <Type>(values: readonly Type[]): Type => values[pick(values.length)] as Type;

before(() => {
  mkdirSync(incomingDirectory, { mode: 0o755 });
  writeFileSync(custody, '', { mode: 0o644 });
  for (const [index, name] of names.entries()) {
    appendCustody(custody, { event: 'note', time: new Date(), said: 'before a deposit' });
    plantGroup({
      incomingDirectory,
      logfilesDirectory: root,
      name,
      out: 'out '.repeat(index * 40),
      err: index === 1 ? '' : `err${index}`,
    });
  }
  const bytes = readFileSync(custody);
  const head = createHash('sha256').update(bytes).digest('hex');
  const facts = { file: 'nph-webjob-custody.server_1.jsonl', size: bytes.length, head, time: new Date().toISOString() };
  writeFileSync(checkpoint, `${formatCheckpoint(facts, key.privateKey)}\n`);
  for (const path of [custody, ...streamFiles, ...readyFiles]) pristine.set(path, readFileSync(path));
});
after(() => rmSync(root, { recursive: true }));

function verify(): Finding[] {
  return [
    ...verifySite({ incomingDirectory, servers: [{ logfilesDirectory: root, serverId: 'server_1' }], contents: true }),
  ];
}

const bytesOf = (path: string): Buffer => pristine.get(path) ?? Buffer.alloc(0);
const lines = (): string[] => bytesOf(custody).toString('latin1').split('\n').slice(0, -1);

/** What a file becomes; undefined when it is removed. */
type Change = Map<string, Buffer | undefined>;

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
const single = (path: string, change: (bytes: Buffer) => Buffer | undefined): Change =>
  new Map([[path, change(bytesOf(path))]]);
const swapped = (files: readonly string[]): Change => {
  const [one, other] = [from(files), from(files)];
  return new Map([
    [one, bytesOf(other)],
    [other, bytesOf(one)],
  ]);
};
const relined = (change: (lines: string[]) => string[]): Change =>
  single(custody, () =>
    Buffer.from(
      change(lines())
        .map((line) => `${line}\n`)
        .join(''),
      'latin1',
    ),
  );

/** Another text between two quotes, or another digit. */
function edited(line: string): string {
  const values = [...line.matchAll(/:"([^"]+)"|[:,[](\d+)/g)];
  const { index, 0: found } = from(values);
  const at = index + found.length - (found.endsWith('"') ? 2 : 1);
  return `${line.slice(0, at)}${line[at] === '7' ? '8' : '7'}${line.slice(at + 1)}`;
}

const KINDS: Record<string, () => Change> = {
  'a bit of a stream': () => single(from(streamFiles), flipped),
  'the end of a stream': () => single(from(streamFiles), cut),
  'a byte behind a stream': () => single(from(streamFiles), grown),
  'a stream': () => single(from(streamFiles), () => undefined),
  'two streams for each other': () => swapped(streamFiles),
  'a bit of a .rdy': () => single(from(readyFiles), flipped),
  'the end of a .rdy': () => single(from(readyFiles), cut),
  'a .rdy': () => single(from(readyFiles), () => undefined),
  'two .rdy for each other': () => swapped(readyFiles),
  'a group': () => {
    const name = from(names);
    return new Map(EXTENSIONS_KEPT.map((extension) => [join(incomingDirectory, `${name}.${extension}`), undefined]));
  },
  'two groups for each other': () => {
    const [one, other] = [from(names), from(names)];
    return new Map(
      EXTENSIONS_KEPT.flatMap((extension) =>
        [
          [one, other],
          [other, one],
        ].map(([to, origin]): [string, Buffer] => [
          join(incomingDirectory, `${to}.${extension}`),
          bytesOf(join(incomingDirectory, `${origin}.${extension}`)),
        ]),
      ),
    );
  },
  'a bit of the custody record': () => single(custody, flipped),
  'the end of the custody record': () => single(custody, cut),
  'a part of the custody record': () => single(custody, holed),
  'a byte behind the custody record': () => single(custody, grown),
  'a record': () => {
    const index = pick(GROUPS * 2);
    return relined((all) => all.toSpliced(index, 1));
  },
  'two records for each other': () => {
    const [one, other] = [pick(GROUPS * 2), pick(GROUPS * 2)];
    return relined((all) => all.with(one, all[other] ?? '').with(other, all[one] ?? ''));
  },
  'the order of the records': () =>
    relined((all) =>
      all
        .map((line) => ({ line, at: random() }))
        .sort((a, b) => a.at - b.at)
        .map(({ line }) => line),
    ),
  'a record for a copy of another': () => relined((all) => all.with(pick(all.length), from(all))),
  'a copy of a record among the others': () => relined((all) => all.toSpliced(pick(all.length + 1), 0, from(all))),
  'a value in a record': () => {
    const index = pick(GROUPS * 2);
    return relined((all) => all.with(index, edited(all[index] ?? '')));
  },
};

/** A record that was edited by somebody who knows how its sum is made. */
function forged(line: string): string {
  const text = edited(line.slice(0, line.lastIndexOf(',"sum":')));
  return `${text},"sum":"${createHash('sha256').update(text).digest('hex')}"}`;
}

/** What only a checkpoint finds: the last records, changed with skill, or taken away with their groups. */
const SKILLED: Record<string, () => Change> = {
  'a record and its sum': () => {
    const index = pick(GROUPS * 2);
    return relined((all) => all.with(index, forged(all[index] ?? '')));
  },
  'the last groups and their records': () => {
    const kept = pick(GROUPS);
    const gone = names
      .slice(kept)
      .flatMap((name) => EXTENSIONS_KEPT.map((extension) => join(incomingDirectory, `${name}.${extension}`)));
    return new Map<string, Buffer | undefined>([
      ...relined((all) => all.slice(0, kept * 2)),
      ...gone.map((path) => [path, undefined] as const),
    ]);
  },
  'the custody record': () => single(custody, () => undefined),
};

/** Makes a change, looks with `look`, and puts all right again. Undefined for a change that is none. */
function tamper(change: Change, look: () => Finding[]): Finding[] | undefined {
  const real = [...change].filter(([path, bytes]) => bytes === undefined || !bytes.equals(bytesOf(path)));
  if (real.length === 0) return undefined;
  for (const [path, bytes] of real) {
    if (bytes === undefined) rmSync(path);
    else writeFileSync(path, bytes);
  }
  const findings = look();
  for (const [path] of real) writeFileSync(path, bytesOf(path), { mode: 0o644 });
  return findings;
}

/** Whether a finding is about something that was changed. */
function isAbout(change: Change, { place }: Finding): boolean {
  // What the custody record no longer vouches for can be any group.
  if (change.has(custody))
    return place.startsWith('nph-webjob-custody') || names.some((name) => place.startsWith(name));
  return [...change.keys()].some(
    (path) => place.split('.')[0] === path.slice(incomingDirectory.length + 1).split('.')[0],
  );
}

describe(`${MUTATIONS} changes (seed ${SEED})`, () => {
  it('are found, each of them, and nothing else is', (t) => {
    const counts: Record<string, number> = {};
    for (let made = 0; made < MUTATIONS; ) {
      if (made % PRISTINE_EVERY === 0) assert.deepEqual(verify(), [], 'nothing was changed');
      const [kind, make] = from(Object.entries(KINDS)) as [string, () => Change];
      const change = make();
      const findings = tamper(change, verify);
      if (findings === undefined) continue;
      made++;
      counts[kind] = (counts[kind] ?? 0) + 1;
      assert.notEqual(findings.length, 0, `${made}: ${kind} was changed: ${describeChange(change)}`);
      const others = findings.filter((finding) => !isAbout(change, finding));
      assert.deepEqual(others, [], `${made}: ${kind}: ${describeChange(change)}`);
    }
    assert.deepEqual(verify(), []);
    t.diagnostic(JSON.stringify(counts));
    assert.deepEqual(Object.keys(counts).sort(), Object.keys(KINDS).sort());
  });

  it('are found with a checkpoint where somebody knew what to do', () => {
    const look = (): Finding[] => [...compareCheckpoints(checkpoint, key.publicKey, [root])];
    assert.deepEqual(look(), []);
    for (let made = 0; made < MUTATIONS / 100; made++) {
      for (const [kind, make] of Object.entries({ ...SKILLED, 'a bit': () => single(custody, flipped) })) {
        const findings = tamper(make(), look);
        assert.equal(findings?.length, 1, kind);
        assert.match(findings?.[0]?.kind ?? '', /^checkpoint-(?:changed|truncated)$/);
      }
    }
    assert.ok(statSync(checkpoint).size > 0);
    assert.deepEqual(look(), []);
  });
});

function describeChange(change: Change): string {
  return [...change]
    .map(([path, bytes]) => `${path}: ${bytes === undefined ? 'gone' : bytes.toString('latin1')}`)
    .join('\n');
}
