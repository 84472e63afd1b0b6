// The custody record as a transparency log: checkpoints, inclusion proofs and consistency proofs,
// made by webjobctl and verified with nothing but the public key; everything else is rejected.
import assert from 'node:assert/strict';
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, randomInt } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { checkText } from '../../evidence/check.ts';
import { hashLeaf } from '../../evidence/merkle.ts';
import { formatTreeHead, parseProof, parseTreeHead, splitCheckpoints, TlogError } from '../../evidence/tlog.ts';
import { CustodyTree, rootsOf } from '../../evidence/tree.ts';
import { signerOf, verifierOf } from '../../notes/ed25519.ts';
import { NoteError, parseNote, signNote, verifyNote } from '../../notes/note.ts';
import { configure } from '../../scripts/site.ts';
import { custodyOf } from '../support/custody-record.ts';
import { type LockerSite, makeLockerSite, type Ran } from '../support/locker-site.ts';
import { runWebjobctl } from '../support/operator.ts';
import { findWebUser } from '../support/tree.ts';
import { makeWitness } from '../support/witnesses.ts';

const ORIGIN = 'example.org/webjob/server_1';

describe('webjobctl custody, as a transparency log', () => {
  const its: LockerSite = makeLockerSite();
  const { site } = its;
  const at = (name: string): string => join(site.root, name);
  const custody = (...args: string[]): Promise<Ran> => its.webjobctl('custody', ...args);
  const checkpoint = async (name: string, ...args: string[]): Promise<Ran> => {
    const ran = await custody('checkpoint', '--key', at('custody.key'), ...args);
    writeFileSync(at(name), ran.text);
    return ran;
  };
  const check = (name: string, ...args: string[]): Promise<Ran> =>
    custody('check', at(name), '--key', at('custody.pub'), ...args);
  const jobs: string[] = [];
  const runJobs = async (count: number): Promise<void> => {
    for (let index = 0; index < count; index += 1)
      jobs.push(await its.run({ clientId: 'client1', fileName: 'host.sh', out: `${jobs.length}\n` }));
  };
  before(async () => {
    configure(site, { CustodySegmentLimit: '4000' });
    assert.equal((await its.webjobctl('sign', 'keygen', at('custody'))).exitCode, 0);
    await runJobs(3);
  });
  after(its.close);

  const entries = (): string[] => {
    const first = custodyOf(site);
    const rest = Array.from({ length: 99 }, (_, index) =>
      join(first.replace(/\.jsonl$/, '.d'), `${String(index + 2).padStart(6, '0')}.jsonl`),
    );
    return [first, ...rest]
      .filter((path) => existsSync(path))
      .flatMap((path) => readFileSync(path, 'latin1').split('\n').slice(0, -1));
  };

  it('signs size and root hash as a note that any C2SP tool can read', async () => {
    const { text, exitCode, stderr } = await checkpoint('first', '--origin', 'example.org/webjob');
    assert.deepEqual([exitCode, stderr], [0, '']);
    const [origin, size, , blank, signature, end, ...more] = text.split('\n');
    assert.deepEqual([origin, size, blank, end, more], [ORIGIN, `${entries().length}`, '', '', []]);
    assert.match(signature ?? '', /^— example\.org\/webjob\/server_1 [A-Za-z0-9+/]{91}=$/);
    const key = createPublicKey(readFileSync(at('custody.pub'), 'utf8'));
    assert.equal(verifyNote(parseNote(Buffer.from(text)), [verifierOf(ORIGIN, key)]).length, 1);
    const checked = await check('first');
    assert.deepEqual([checked.exitCode, checked.text], [0, `good: checkpoint of ${ORIGIN}, ${size} entries\n`]);
  });

  it('keeps the name of the log, and refuses another', async () => {
    const { stderr, exitCode } = await checkpoint('none', '--origin', 'example.net/other');
    assert.equal(exitCode, 2);
    assert.match(stderr, /error: the first checkpoint named this log example\.org\/webjob\/server_1$/m);
    for (const origin of ['', 'a b', 'a+b', 'a/', 'a\u00a0b', 'x'.repeat(201)])
      assert.equal((await checkpoint('none', '--origin', origin)).exitCode, 2, JSON.stringify(origin));
  });

  it('proves the entry of a job to anyone with just the public key', async () => {
    for (const jobId of jobs) {
      const { text, exitCode } = await custody('prove', jobId);
      assert.equal(exitCode, 0);
      writeFileSync(at('proof'), text);
      const { index, entry } = parseProof(text);
      assert.equal(entry?.toString('latin1'), entries()[index]);
      assert.equal(JSON.parse(entry?.toString('latin1') ?? '').jobId, jobId);
      const checked = await check('proof');
      assert.deepEqual([checked.exitCode, checked.text.split('\n')[1]], [0, entries()[index]]);
      for (const other of jobs) assert.equal(entry?.includes(other), other === jobId);
    }
  });

  it('proves nothing newer than the newest checkpoint, and says how to get there', async () => {
    await runJobs(1);
    const { stderr, exitCode, text } = await custody('prove', jobs.at(-1) ?? '');
    assert.deepEqual([exitCode, text], [1, '']);
    assert.match(
      stderr,
      /error: no checkpoint covers the record of server_1_\d+_\d+\nwebjobctl: hint: webjobctl custody checkpoint/,
    );
    assert.equal((await custody('prove', 'nobody')).exitCode, 1);
  });

  it('proves that a later checkpoint extends an earlier one, across segments', async () => {
    await runJobs(8);
    assert.ok(existsSync(custodyOf(site).replace(/\.jsonl$/, '.d/000002.jsonl')), 'a second segment');
    assert.equal((await checkpoint('second')).exitCode, 0);
    const { text, exitCode } = await custody('consistency', at('first'), at('second'));
    assert.equal(exitCode, 0);
    writeFileSync(at('extension'), text);
    const checked = await check('extension', '--old', at('first'));
    assert.deepEqual(
      [checked.exitCode, checked.text.replace(/\d+/g, 'N')],
      [0, 'good: example.org/webjob/server_N of N entries begins with the N of the old checkpoint\n'],
    );
    assert.equal((await check('extension')).exitCode, 2, 'without the old one');
    assert.equal((await check('extension', '--old', at('second'))).exitCode, 1, 'another old one');
    assert.equal((await custody('consistency', at('second'), at('first'))).exitCode, 1, 'the other way round');
    const [, size = '', root = ''] = readFileSync(at('first'), 'utf8').split('\n');
    const key = createPrivateKey(readFileSync(at('custody.key'), 'utf8'));
    for (const [name, origin, hash] of [
      ['renamed', 'example.org/webjob/server_2', root],
      ['another', ORIGIN, hashLeaf(Buffer.from('nothing')).toString('base64')],
    ] as const)
      writeFileSync(at(name), signNote(`${origin}\n${size}\n${hash}\n`, [signerOf(origin, key)]));
    assert.equal((await check('extension', '--old', at('renamed'))).exitCode, 1, 'the old one of another log');
    assert.equal((await custody('consistency', at('another'), at('second'))).exitCode, 1, 'not what the record was');
    const proof = await custody('prove', jobs.at(-1) ?? '');
    assert.equal(proof.exitCode, 0, 'an entry of the second segment');
    const early = await custody('prove', jobs[0] ?? '', '--checkpoint', at('first'));
    assert.equal(early.exitCode, 0, 'an entry in an earlier tree');
    assert.match(
      early.text,
      new RegExp(`\\n${readFileSync(at('first'), 'utf8').split('\n')[2]?.replace(/[+/]/g, '\\$&')}\\n`),
    );
  });

  it("gives the same to a user who cannot read root's copy, and reports a damaged tree", async () => {
    const kept = join(site.base, 'config', 'nph-webjob', 'custody-tree.server_1.json');
    const state = readFileSync(kept, 'utf8');
    const args = ['custody', 'prove', jobs[5] ?? '', '--checkpoint', at('second')];
    const { text } = await its.webjobctl(...args);
    const user = findWebUser();
    if (user) {
      chmodSync(at('second'), 0o644);
      const { stdout } = await runWebjobctl(['--config', site.propertiesFile, ...args], { user, cwd: '/' });
      assert.equal(stdout, text);
    }
    writeFileSync(kept, state.slice(0, 20));
    const broken = await its.webjobctl(...args);
    assert.equal(broken.exitCode, 4);
    assert.match(
      broken.stderr,
      /custody-tree\.server_1\.json is damaged\nwebjobctl: hint: rm \S+ {2}# the next checkpoint computes it again/,
    );
    rmSync(kept);
    mkdirSync(kept);
    const unread = await its.webjobctl(...args);
    assert.deepEqual([unread.exitCode, unread.text], [4, ''], unread.stderr);
    rmdirSync(kept);
    assert.equal((await its.webjobctl(...args)).text, text, 'worked out from the record');
    writeFileSync(kept, state, { mode: 0o600 });
  });

  it('accepts the signatures of witnesses, keeps them, and checks those that are given', async () => {
    const text = readFileSync(at('second'), 'utf8');
    const witness = makeWitness('witness.example/w1');
    writeFileSync(at('cosigned'), text + witness.cosign(text));
    writeFileSync(at('witnesses'), `# who looks on\n${witness.verifierKey}\n`);
    assert.equal((await check('cosigned', '--witnesses', at('witnesses'))).exitCode, 0);
    assert.match(
      (await check('second', '--witnesses', at('witnesses'))).stderr,
      /: too few witnesses have cosigned it$/m,
    );
    const [line = ''] = readFileSync(at('cosigned'), 'utf8').split('\n').slice(-2);
    writeFileSync(at('unsigned'), `${parseNote(Buffer.from(text)).text}\n${line}\n`);
    const unsigned = await check('unsigned', '--witnesses', at('witnesses'));
    assert.match(unsigned.stderr, /: the key has not signed the checkpoint$/m, 'a witness alone');
    const bend = (bytes: Buffer): Buffer => bytes.fill(bytes.readUInt8(30) ^ 1, 30, 31);
    writeFileSync(at('miscosigned'), text + witness.cosign(text, 1_790_000_000, bend));
    assert.match(
      (await check('miscosigned', '--witnesses', at('witnesses'))).stderr,
      /: the signature of witness\.example\/w1\+\S+ is wrong$/m,
    );

    const added = await custody('checkpoint', '--add', at('cosigned'), '--key', at('custody.pub'));
    assert.deepEqual(
      [added.exitCode, added.stderr.replace(/\d+/g, 'N')],
      [0, 'webjobctl: kept: example.org/webjob/server_N of N entries\n'],
    );
    writeFileSync(at('proof'), (await custody('prove', jobs[0] ?? '')).text);
    assert.equal((await check('proof', '--witnesses', at('witnesses'))).exitCode, 0, 'in proofs from now on');
    const verify = (...args: string[]) => its.webjobctl('verify', '--custody', '--key', at('custody.pub'), ...args);
    assert.equal((await verify('--checkpoint', at('cosigned'), '--witnesses', at('witnesses'))).exitCode, 0);
    assert.match(
      (await verify('--checkpoint', at('second'), '--witnesses', at('witnesses'))).text,
      /^checkpoint-invalid/m,
    );
  });

  it('requires as many witnesses as a policy', async () => {
    const text = readFileSync(at('second'), 'utf8');
    const [one, two, three] = ['one', 'two', 'three'].map((name) => makeWitness(`witness.example/${name}`));
    assert.ok(one && two && three);
    const lines = [one, two, three].map(
      ({ verifierKey }, index) => `witness w${index + 1} ${verifierKey} https://w.example/`,
    );
    const policy = (...more: string[]): void => writeFileSync(at('policy'), [...lines, ...more, ''].join('\n'));
    const cosigned = async (...witnesses: (typeof one)[]): Promise<number | null> => {
      writeFileSync(at('cosigned'), text + witnesses.map((witness) => witness.cosign(text)).join(''));
      return (await check('cosigned', '--witnesses', at('policy'))).exitCode;
    };
    policy('# two of three', 'group both 2 w1 w2 w3', 'quorum both');
    assert.deepEqual([await cosigned(one), await cosigned(one, one), await cosigned(one, three)], [1, 1, 0]);
    policy('group any any w2 w3', '  group all\tall w1 any', 'quorum all');
    assert.deepEqual([await cosigned(two, three), await cosigned(one), await cosigned(one, three)], [1, 1, 0]);
    policy('quorum w2');
    assert.deepEqual([await cosigned(one, three), await cosigned(two)], [1, 0]);
    policy('quorum none');
    assert.equal(await cosigned(), 0);
    const tooLate = two.cosign(text, 253_402_300_800);
    writeFileSync(at('cosigned'), text + one.cosign(text) + tooLate);
    policy('quorum w1');
    assert.match(
      (await check('cosigned', '--witnesses', at('policy'))).stderr,
      /the signature of witness\.example\/two\S+ is wrong/,
    );
    for (const [more, said] of [
      [[], /: no quorum line$/m],
      [['quorum both'], /line 4: both is not defined above$/m],
      [['group both 4 w1 w2 w3', 'quorum both'], /line 4: 4 of 3 is not a quorum$/m],
      [['group both 0 w1', 'quorum both'], /line 4: 0 of 1 is not a quorum$/m],
      [['group both any', 'quorum both'], /line 4: any of 0 is not a quorum$/m],
      [['group a any w1', 'group b any w1', 'quorum a'], /line 5: w1 is a member twice$/m],
      [['group none any w1', 'quorum none'], /line 4: none is reserved or already defined/m],
      [['group w1 any w2', 'quorum w1'], /line 4: w1 is reserved or already defined$/m],
      [['group * any w2', 'quorum *'], /line 4: \* is reserved or already defined/m],
      [['quorum w1', 'quorum w2'], /line 5: a second quorum line$/m],
      [[lines[0] ?? ''], /line 4: the same key as witness\.example\/one/m],
      [[one.verifierKey.replace('one', 'other')], /line 4: the id does not belong to this name and key$/m],
      [[makeWitness('more').verifierKey], /: a policy cannot be mixed with plain verifier keys$/m],
      [['quorum'], /line 4: not a verifier key$/m],
      [['trust w1 w2', 'quorum w1'], /line 4: not a line of a witness policy$/m],
    ] as const) {
      policy(...more);
      const { exitCode, stderr } = await check('cosigned', '--witnesses', at('policy'));
      assert.equal(exitCode, 4);
      assert.match(stderr, said);
    }
  });

  it('says in configtest whether enough witnesses have cosigned it', async () => {
    const [one, two] = ['one', 'two'].map((name) => makeWitness(`witness.example/${name}`));
    assert.ok(one && two);
    const path = join(dirname(site.propertiesFile), 'webjob-witnesses');
    const said = async (): Promise<string> => (await its.webjobctl('configtest')).text;
    assert.doesNotMatch(await said(), /witnesses/, 'a site without witnesses');
    writeFileSync(path, `${one.verifierKey}\n${two.verifierKey}\nquorum witness-1\n`);
    assert.match(await said(), /error.*webjob-witnesses: a policy cannot be mixed with plain verifier keys/);
    writeFileSync(
      path,
      `witness a ${one.verifierKey}\nwitness b ${two.verifierKey}\ngroup both all a b\nquorum both\n`,
    );
    const few = /warning.*too few witnesses have cosigned any checkpoint of the custody record of server_1/;
    assert.match(await said(), few);
    const text = readFileSync(at('second'), 'utf8');
    const days = (count: number): number => Math.floor(Date.now() / 1000) - count * 86_400;
    const keep = async (...lines: string[]): Promise<void> => {
      writeFileSync(at('cosigned'), text + lines.join(''));
      assert.equal((await custody('checkpoint', '--add', at('cosigned'), '--key', at('custody.pub'))).exitCode, 0);
    };
    await keep(one.cosign(text, days(50)));
    assert.match(await said(), few);
    await keep(one.cosign(text, days(50)), two.cosign(text, days(31)));
    assert.match(await said(), /warning.*that enough witnesses have cosigned is 31 days old/);
    await keep(one.cosign(text, days(31)), two.cosign(text, days(30)));
    assert.match(await said(), /note.*that enough witnesses have cosigned is 30 days old/);
    await keep(one.cosign(text, days(2)), two.cosign(text, days(3)));
    assert.match(await said(), /note.*that enough witnesses have cosigned is 2 days old/);
    rmSync(path);
  });

  it('can be signed elsewhere: the text goes out, the note comes in, and nothing else is kept', async () => {
    await runJobs(1);
    const checkpoints = join(site.base, 'config', 'nph-webjob', 'custody-checkpoints.server_1');
    const kept = readFileSync(checkpoints, 'utf8');
    const { text, exitCode } = await custody('checkpoint', '--unsigned', '--server', 'server_1');
    assert.equal(exitCode, 0);
    assert.equal(readFileSync(checkpoints, 'utf8'), kept);
    const key = createPrivateKey(readFileSync(at('custody.key'), 'utf8'));
    writeFileSync(at('signed'), signNote(text, [signerOf(ORIGIN, key)]));
    assert.equal((await custody('prove', jobs.at(-1) ?? '')).exitCode, 1);
    const forged = text.replace(/\n(\d+)\n/, (_, size) => `\n${Number(size) - 1}\n`);
    writeFileSync(at('forged'), signNote(forged, [signerOf(ORIGIN, key)]));
    const other = generateKeyPairSync('ed25519').privateKey;
    writeFileSync(at('alien'), signNote(text, [signerOf(ORIGIN, other)]));
    for (const [name, said] of [
      ['forged', /: the first \d+ entries of example\.org\/webjob\/server_1 differ here$/m],
      ['alien', /alien, line 1 is not a checkpoint signed with this key: the key has not signed the checkpoint$/m],
    ] as const) {
      const refused = await custody('checkpoint', '--add', at(name), '--key', at('custody.pub'));
      assert.equal(refused.exitCode, 4);
      assert.match(refused.stderr, said);
    }
    assert.equal((await custody('checkpoint', '--add', at('signed'), '--key', at('custody.pub'))).exitCode, 0);
    assert.equal((await custody('prove', jobs.at(-1) ?? '')).exitCode, 0);
    for (const words of [
      ['--unsigned', '--key', at('custody.key')],
      ['--add', at('signed')],
      [],
      ['--add', at('signed'), '--key', at('custody.pub'), '--unsigned'],
    ])
      assert.equal((await custody('checkpoint', ...words)).exitCode, 2, words.join(' '));
  });

  it('refuses a root that is longer or shorter than a hash', () => {
    const headWith = (bytes: number): string => formatTreeHead({ origin: ORIGIN, size: 1, root: Buffer.alloc(bytes) });
    assert.equal(parseTreeHead(headWith(32)).root.length, 32);
    for (const bytes of [0, 31, 33, 64]) assert.throws(() => parseTreeHead(headWith(bytes)), TlogError, `${bytes}`);
  });

  it('refuses 10,000 checkpoints and proofs with a byte changed, added or removed', async () => {
    writeFileSync(at('proof'), (await custody('prove', jobs[4] ?? '', '--checkpoint', at('second'))).text);
    const key = createPublicKey(readFileSync(at('custody.pub'), 'utf8'));
    const old = readFileSync(at('first'), 'utf8');
    const accept = (text: string): string => {
      try {
        return JSON.stringify([...checkText(text, { key }, { old })]);
      } catch (error) {
        if (error instanceof NoteError || error instanceof TlogError) return '';
        throw error;
      }
    };
    const second = readFileSync(at('second'), 'utf8');
    const line = second.trimEnd().split('\n').at(-1) ?? '';
    const wrong = line.slice(0, -20) + (line.at(-20) === 'A' ? 'B' : 'A') + line.slice(-19);
    for (const lines of [`${line}\n${wrong}`, `${wrong}\n${line}`])
      assert.equal(accept(second.replace(line, () => lines)), '', 'of two signatures one is wrong');
    assert.notEqual(accept(second.replace(line, () => `${line}\n${line}`)), '');
    for (const name of ['second', 'proof', 'extension']) {
      const bytes = readFileSync(at(name));
      const good = accept(bytes.toString('utf8'));
      assert.notEqual(good, '', name);
      for (let round = 0; round < 3400; round += 1) {
        const changed = Buffer.from(bytes);
        const place = randomInt(changed.length);
        const value = randomInt(1, 256);
        const kind = randomInt(3);
        if (kind === 0) changed[place] = (changed[place] ?? 0) ^ value;
        const text = (
          kind === 0
            ? changed
            : Buffer.concat([
                bytes.subarray(0, place),
                ...(kind === 1 ? [Buffer.from([value])] : []),
                bytes.subarray(place + (kind === 2 ? 1 : 0)),
              ])
        ).toString('utf8');
        // A blank line before or after it makes no difference.
        assert.ok(
          ['', ...(text.trim() === bytes.toString('utf8').trim() ? [good] : [])].includes(accept(text)),
          `${name}: ${JSON.stringify(text)}`,
        );
      }
    }
  });

  it('signs no changed record until it is adopted as another log', async () => {
    const path = custodyOf(site);
    const whole = readFileSync(path, 'latin1');
    const edited = whole.replace('"fileName":"host.sh"', '"fileName":"hosT.sh"');
    assert.notEqual(edited, whole);
    writeFileSync(path, edited, 'latin1');
    const refused = await checkpoint('third');
    assert.deepEqual([refused.exitCode, refused.text], [1, '']);
    assert.match(
      refused.stderr,
      /warning: example\.org\/webjob\/server_1 gets no checkpoint: its first \d+ entries have changed$/m,
    );
    const verified = await its.webjobctl(
      'verify',
      '--custody',
      '--checkpoint',
      at('second'),
      '--key',
      at('custody.pub'),
    );
    assert.match(
      verified.text,
      /^checkpoint-changed +example\.org\/webjob\/server_1: its first \d+ entries have changed/m,
    );
    const adopted = await custody('adopt', '--reason', 'a test');
    assert.match(
      adopted.stderr,
      /server_1 ended with the adopted record: the next checkpoint is of example\.org\/webjob\/server_1\/r2$/m,
    );
    const next = await checkpoint('third');
    assert.equal(next.text.split('\n')[0], `${ORIGIN}/r2`);
    const kept = readdirSync(join(site.base, 'config', 'nph-webjob')).filter((name) =>
      /^custody-tree\.server_1/.test(name),
    );
    assert.deepEqual(
      kept.sort(),
      ['2.hashes', '2.places', 'json'].map((end) => `custody-tree.server_1.${end}`),
    );
    const also = await its.webjobctl('verify', '--custody', '--checkpoint', at('third'), '--key', at('custody.pub'));
    assert.doesNotMatch(also.text, /^checkpoint/m);
    assert.equal((await custody('consistency', at('second'), at('third'))).exitCode, 1, 'two logs');
    assert.equal((await custody('prove', jobs[0] ?? '')).exitCode, 1, 'the record that was edited');
    assert.equal((await custody('prove', jobs[1] ?? '')).exitCode, 0);
  });

  it('reports a truncated record', async () => {
    const segments = readFileSync(custodyOf(site), 'latin1').split('\n');
    writeFileSync(custodyOf(site), `${segments.slice(0, 2).join('\n')}\n`, 'latin1');
    rmSync(custodyOf(site).replace(/\.jsonl$/, '.d'), { recursive: true });
    const verified = await its.webjobctl(
      'verify',
      '--custody',
      '--checkpoint',
      at('third'),
      '--key',
      at('custody.pub'),
    );
    assert.match(
      verified.text,
      /^checkpoint-truncated +example\.org\/webjob\/server_1\/r2: 2 entries, \d+ at the checkpoint$/m,
    );
    assert.match(
      (await checkpoint('fourth')).text,
      /^example\.org\/webjob\/webjobctl\n\d+\n[^\n]+\n\n[^\n]+\n$/,
      'the other record alone',
    );
  });
});

describe('a file of checkpoints', () => {
  const text = (size: number): string => `example.org\n${size}\n${hashLeaf(Buffer.from('')).toString('base64')}\n`;
  const { privateKey } = generateKeyPairSync('ed25519');
  const note = (size: number): string => signNote(text(size), [signerOf('example.org', privateKey)]);

  it('has every complete note, wherever the one before it was cut off', () => {
    const cut = note(7);
    for (let length = 0; length < cut.length; length += 1) {
      const whole = `${note(1)}\n\n${cut.slice(0, length)}\n\n${note(2)}${note(3)}`;
      const found = splitCheckpoints(whole).map((piece) => piece.text);
      for (const size of [1, 2, 3]) assert.ok(found.includes(note(size)), `${size} of ${JSON.stringify(whole)}`);
      assert.ok(found.length <= 5);
    }
    assert.deepEqual(splitCheckpoints(`\n\n${note(1)}`), [{ line: 3, text: note(1) }]);
    assert.deepEqual(splitCheckpoints('\n\n'), []);
  });
});

describe('the tree of a record', () => {
  const folder = mkdtempSync(join(tmpdir(), 'webjob-tree-'));
  after(() => rmSync(folder, { recursive: true }));
  const file = 'nph-webjob-custody.server_1.jsonl';
  const open = (store?: string): CustodyTree =>
    new CustodyTree({
      logs: folder,
      serverId: 'server_1',
      origin: 'example.org',
      folder: store,
      digest: (name, size) =>
        createHash('sha256')
          .update(readFileSync(join(folder, name)).subarray(0, size))
          .digest('hex'),
    });
  const grow = (tree: CustodyTree, size: number): void => tree.grow([{ file, number: 1, size }], true);

  it('has the lines up to a size as entries, whatever their content or length', () => {
    const lines = ['one', '', '\u00ff\u0000 torn', 'x'.repeat(1_500_000), 'last'];
    writeFileSync(join(folder, file), `${lines.join('\n')}\nbegun`, 'latin1');
    const tree = open();
    grow(tree, lines.slice(0, 2).join('\n').length + 1);
    assert.equal(tree.size, 2);
    grow(tree, lines.join('\n').length + 1);
    assert.equal(tree.size, 5);
    const { size, roots } = rootsOf(folder, [file], [0, 1, 2, 3, 4, 5]);
    assert.equal(size, 5);
    for (const [count, root] of roots) assert.deepEqual(tree.root(count), root, `of ${count}`);
    for (const [index, line] of lines.entries()) {
      const { from, to } = tree.place(index);
      assert.equal(readFileSync(join(folder, file), 'latin1').slice(from, to), line);
      assert.equal(tree.find(1, to + 1), index);
    }
    assert.equal(tree.find(1, 2), undefined);
    tree.close();
  });

  it('continues from the stored state, whatever a killed process left behind', () => {
    const store = mkdtempSync(join(folder, 'store-'));
    const text = Array.from({ length: 40 }, (_, index) => `line ${index}\n`).join('');
    writeFileSync(join(folder, file), text);
    const { roots } = rootsOf(folder, [file], [10, 25, 40]);
    const half = text.indexOf('line 10\n');
    const first = open(store);
    grow(first, half);
    first.save();
    first.close();
    const killed = open(store);
    grow(killed, text.indexOf('line 25\n'));
    assert.deepEqual(killed.root(), roots.get(25));
    killed.close();
    const next = open(store);
    assert.deepEqual([next.size, next.root()], [10, roots.get(10)]);
    grow(next, text.length);
    next.save();
    next.close();
    const last = open(store);
    assert.deepEqual([last.size, last.root(), last.root(25)], [40, roots.get(40), roots.get(25)]);
    last.close();
    const [hashes = ''] = readdirSync(store).filter((name) => name.endsWith('.hashes'));
    writeFileSync(join(store, hashes), readFileSync(join(store, hashes)).subarray(0, 100));
    const cut = open(store);
    assert.throws(() => cut.root(), /stored tree of the custody record is truncated/);
    cut.close();
  });
});
