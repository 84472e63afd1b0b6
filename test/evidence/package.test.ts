// Evidence packages: what is and is not in them, VERIFY.sh under three shells without Node, a byte
// changed anywhere, and what a package says of evidence that was changed. More of it with
// WEBJOB_TEST_PACKAGES and WEBJOB_TEST_MUTATIONS.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Encrypter, generateIdentity, identityToRecipient } from 'age-encryption';
import { splitCheckpoints } from '../../evidence/tlog.ts';
import { addCommand, configure } from '../../scripts/site.ts';
import { custodyOf, readRecords } from '../support/custody-record.ts';
import { groupNames } from '../support/keep-site.ts';
import { randomNumbers } from '../support/locker-kills.ts';
import type { Ran } from '../support/locker-site.ts';
import {
  type Checker,
  changeByte,
  linesOf,
  listAgain,
  makeCheckers,
  makePackageSite,
  type PackageSite,
} from '../support/package-site.ts';
import { findProgram } from '../support/pad-workshop.ts';
import { WEBJOBCTL } from '../support/program-runs.ts';
import { makeExaminer, open as openSealed } from '../support/sealed-streams.ts';
import { makeSigner } from '../support/signed-programs.ts';
import {
  keyLine,
  plantSealed,
  plantSigned,
  resultKeysOf,
  type SignedUpload,
  writeResultKeys,
} from '../support/signed-results.ts';
import { readFiles } from '../support/tree.ts';
import { makeWitness } from '../support/witnesses.ts';

const PACKAGES = Number(process.env.WEBJOB_TEST_PACKAGES ?? 1);
const MUTATIONS = Number(process.env.WEBJOB_TEST_MUTATIONS ?? 3);
const SEED = Number(process.env.WEBJOB_TEST_SEED ?? 20040523);
const random = randomNumbers(SEED);
const pick = <Type>(values: readonly Type[]): Type => values[Math.floor(random() * values.length)] as Type;

let its: PackageSite;
let checkers: Checker[];
let count = 0;

/** All tests share one site. */
async function open(): Promise<void> {
  its ??= await makePackageSite();
  checkers ??= makeCheckers(its.at(''));
}

/** Makes a package of these jobs, which must end with this exit code. */
async function make(exitCode: number, ...args: string[]): Promise<{ folder: string; ran: Ran }> {
  const folder = its.at(`package-${++count}`);
  const ran = await its.expect(exitCode, 'evidence', ...args, '--out', folder);
  return { folder, ran };
}

/** Every file of a package by its path, one character for each byte. */
const filesOf = (folder: string): Map<string, string> => readFiles(folder);

describe(`webjobctl evidence, seed ${SEED}`, () => {
  before(open);

  it('makes a bag with everything on the jobs of a client, and nothing on others', async () => {
    const about = ['--case-number', 'K 47/11', '--examiner', 'A. Smith', '--description', 'what client1 printed'];
    const { folder, ran } = await make(0, '--client', 'client1', ...its.keys, ...about);
    assert.match(ran.stderr, /: 5 jobs, 5 uploads, 0 findings, \d+ notes?\n$/);
    const files = filesOf(folder);
    const all = [...files].map(([path, bytes]) => `${path}\n${bytes}`).join('\n');
    for (const secret of ['client2', 'ps.sh', 'belongs elsewhere', its.jobs.others, its.jobs.othersLater])
      assert.ok(!all.includes(secret), secret);
    for (const mark of ['K 47/11', 'A. Smith', 'what client1 printed'])
      assert.ok(files.get('bag-info.txt')?.includes(mark), mark);
    const job = (id: string): string =>
      [...files.keys()].find((path) => path.startsWith('data/jobs/') && path.includes(id))?.split('/')[2] ?? '';
    const names = (id: string): string[] =>
      [...files.keys()]
        .filter((path) => path.startsWith(`data/jobs/${job(id)}/`))
        .map((path) => path.split('/').slice(3).join('/'))
        .sort();
    const upload = ['custody.json', 'custody.tlog-proof', 'env', 'err', 'out', 'rdy'].map((name) => `upload-1/${name}`);
    assert.deepEqual(names(its.jobs.packed), ['job.json', 'log.txt', 'program.manifest', ...upload]);
    assert.deepEqual(names(its.jobs.uncovered), [
      'job.json',
      'log.txt',
      'program.manifest',
      ...upload.filter((name) => !name.endsWith('proof')),
    ]);
    // The other client's request is not mentioned.
    assert.deepEqual(names(its.jobs.refused), ['job.json', 'log.txt', 'program.manifest']);
    assert.equal(files.get(`data/jobs/${job(its.jobs.twice)}/upload-1/out`), '\0\xff binary \x1b[2J\n');
    assert.equal(files.get(`data/jobs/${job(its.jobs.twice)}/log.txt`)?.split('\n').length, 4, 'both attempts');
    const log = readFileSync(its.site.logFile, 'latin1');
    for (const line of files.get(`data/jobs/${job(its.jobs.twice)}/log.txt`)?.split('\n') ?? [])
      assert.ok(log.includes(line));
    const sums = spawnSync('sh', ['-c', 'sha256sum -c --strict tagmanifest-sha256.txt manifest-sha256.txt'], {
      cwd: folder,
    });
    assert.equal(sums.status, 0, String(sums.stdout));
    assert.equal(lstatSync(folder).mode & 0o777, 0o700);
  });

  it('is recorded with user, time and jobs before the package has its name', async () => {
    const { folder, ran } = await make(0, its.jobs.twice, its.jobs.later, ...its.keys, '--examiner', 'A. Smith');
    const last = readRecords(custodyOf(its.site, 'webjobctl')).at(-1) ?? {};
    const { event, by, directory, jobs, examiner, findings, tagListSha256 } = last;
    assert.deepEqual([event, directory, examiner, findings], ['evidence', folder, 'A. Smith', 0]);
    assert.deepEqual(jobs, [its.jobs.twice, its.jobs.later]);
    assert.match(String(by), /\w/);
    const digest = createHash('sha256')
      .update(readFileSync(join(folder, 'tagmanifest-sha256.txt')))
      .digest('hex');
    assert.equal(tagListSha256, digest);
    assert.match(ran.text, new RegExp(`^${digest}  tagmanifest-sha256.txt\n[0-9a-f]{64}  VERIFY.sh\n$`));
    assert.equal((await its.webjobctl('verify')).exitCode, 0, 'the record is as it was written');
  });

  it('makes packages that VERIFY.sh, under every shell without Node, and --verify judge alike', async () => {
    const { folder } = await make(0, its.jobs.twice, its.jobs.uncovered, ...its.keys);
    const ran = await its.expect(0, 'evidence', '--verify', folder);
    const wanted = linesOf(ran.text).map(withoutTime).sort();
    assert.equal(wanted.filter((line) => line.includes('stamped by')).length, 2, 'what came before the time stamp');
    assert.equal(wanted.filter((line) => line.includes('signed by example.org/author')).length, 2);
    // The recipient's own copy of the script, to which the package is an argument.
    const script = its.at('VERIFY.sh');
    copyFileSync(join(folder, 'VERIFY.sh'), script);
    const compared = [...filesOf(folder).keys()].filter((path) =>
      /^(?:data\/keys\/.*|VERIFY\.sh|tagmanifest-sha256\.txt)$/.test(path),
    );
    assert.ok(compared.length > 3, `${compared}`);
    for (const { name, check } of checkers) {
      const { code, text } = check(folder, script);
      assert.equal(code, 0, `${name}: ${text}`);
      assert.match(text, /\nOK: \d+ checks passed, \d+ notes?\n$/, name);
      const printed = [...text.matchAll(/^[0-9a-f]{64} {2}(.*)$/gm)].map(([, path]) => path);
      assert.deepEqual(printed.sort(), compared.sort(), name);
      assert.deepEqual(linesOf(text).map(withoutTime).sort(), wanted, name);
    }
  });

  it('accepts the keys that a recipient has from elsewhere', async () => {
    const { folder } = await make(0, its.jobs.twice, ...its.keys);
    await its.expect(0, 'evidence', '--verify', folder, ...its.keys);
    const { text } = await its.expect(1, 'evidence', '--verify', folder, '--key', its.at('stranger.pub'));
    assert.match(text, /^FAILED .*no signature of example\.org\/webjob\/server_1 with a key/m);
    const { ran } = await make(1, its.jobs.twice, '--key', its.at('stranger.pub'));
    assert.match(ran.text, /^checkpoint-invalid .*none of the given keys has signed it$/m);
  });

  it('says what an unsigned package does not prove', async () => {
    const { folder, ran } = await make(0, its.jobs.uncovered);
    assert.match(ran.stderr, /[1-9]\d* notes?\n/);
    const { code, text } = (checkers[0] as Checker).check(folder);
    assert.equal(code, 0, text);
    assert.match(text, /^NOTE .*custody\.json: no checkpoint covers it$/m);
    assert.match(readFileSync(join(folder, 'data', 'notes.txt'), 'utf8'), /no public key was given/);
  });

  it("selects what is on hold for a case, but not for a part of the case's name", async () => {
    const { ran } = await make(0, '--case', '4711');
    assert.match(ran.stderr, /: 5 jobs, /);
    assert.match(readFileSync(join(its.at(`package-${count}`), 'bag-info.txt'), 'utf8'), /^Case-Number: 4711$/m);
    for (const name of ['471', 'court case', ' '])
      assert.match((await make(1, '--case', name)).ran.stderr, /no hold has a reason that names/, name);
    const since = await make(1, '--case', '4711', '--since', '2099-01-01');
    assert.match(since.ran.stderr, /no job matches/);
  });

  it('makes and checks packages with the commands of docs/guide/evidence.md', () => {
    const page = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'guide', 'evidence.md'), 'utf8');
    const commands = [...page.matchAll(/^ {4}((?:webjobctl|sh) .*)$/gm)].map(([, command = '']) => command);
    assert.equal(commands.length, 6);
    const folder = its.at('guide');
    mkdirSync(folder);
    // The site already has a key, and its checkpoints are signed with it.
    for (const name of ['custody.key', 'custody.pub']) copyFileSync(its.at(name), join(folder, name));
    writeFileSync(join(folder, 'webjobctl'), `#!/bin/sh\nexec "${process.execPath}" "${WEBJOBCTL}" "$@"\n`, {
      mode: 0o755,
    });
    const env = { PATH: `${folder}:${process.env.PATH}`, WEBJOB_PROPERTIES_FILE: its.site.propertiesFile };
    for (const command of commands.filter((line) => !line.includes('sign keygen'))) {
      const cwd = command.startsWith('sh ') ? join(folder, 'case4711') : folder;
      const { status, stderr } = spawnSync('/bin/sh', ['-c', command], { cwd, env, encoding: 'utf8' });
      // client1 is already on hold.
      assert.equal(status, command.includes('hold add') ? 1 : 0, `${command}: ${stderr}`);
    }
    assert.ok(existsSync(join(folder, 'case4711.zip')));
  });

  it('requires options that match, and an unused directory', async () => {
    const { folder } = await make(0, its.jobs.later);
    for (const [args, said] of [
      [[its.jobs.later], /evidence requires --out/],
      [['--out', its.at('x')], /select jobs/],
      [[its.jobs.later, '--case', '4711', '--out', its.at('x')], /cannot be combined with/],
      [[its.jobs.later, '--examiner', 'a\nb', '--out', its.at('x')], /the examiner is not one line/],
      [[its.jobs.later, '--out', join(its.site.incoming, 'x')], /is in the locker/],
      [['--verify', folder, '--zip'], /--verify takes a package/],
      [[its.jobs.later, '--ca', its.at('tsa/tsa.key'), '--out', its.at('x')], /private key/],
    ] as const)
      assert.match((await its.expect(2, 'evidence', ...args)).stderr, said);
    assert.match((await its.expect(4, 'evidence', its.jobs.later, '--out', folder)).stderr, /already exists/);
    assert.match((await its.expect(4, 'evidence', '--verify', its.site.base)).stderr, /is not a package/);
    assert.ok(!existsSync(its.at('x')));
  });

  it('also makes one file, which unpacks to the same', async () => {
    const { folder } = await make(0, its.jobs.twice, '--zip');
    mkdirSync(its.at('unzipped'));
    const unzip = spawnSync(findProgram('busybox') ?? '', ['unzip', '-q', `${folder}.zip`], {
      cwd: its.at('unzipped'),
    });
    assert.equal(unzip.status, 0, String(unzip.stderr));
    const [name = ''] = readdirSync(its.at('unzipped'));
    assert.deepEqual(filesOf(join(its.at('unzipped'), name)), filesOf(folder));
  });

  it('leaves nothing under its name when it is killed, and the next run cleans up', async () => {
    const folder = its.at('killed');
    const words = ['--config', its.site.propertiesFile, 'evidence', '--client', 'client*', '--zip', '--out', folder];
    const begun = (): string[] => readdirSync(its.at('')).filter((name) => name.startsWith('.killed.'));
    const child = spawn(process.execPath, [WEBJOBCTL, ...words], { stdio: 'ignore' });
    const ended = new Promise((resolve) => child.on('close', (_, signal) => resolve(signal)));
    while (begun().length === 0 && child.exitCode === null) await sleep(1);
    child.kill('SIGKILL');
    assert.equal(await ended, 'SIGKILL');
    assert.ok(!existsSync(folder));
    assert.equal(begun().length, 1);
    await its.expect(0, 'evidence', its.jobs.later, '--out', folder);
    assert.deepEqual(begun(), []);
  });

  it('compares every stream with the record while copying, and reports differences', async () => {
    const [, name = ''] =
      groupNames(its.site)
        .map((group) => [readFileSync(join(its.site.incoming, `${group}.rdy`), 'latin1'), group])
        .find(([ready = '']) => ready.includes(its.jobs.later)) ?? [];
    const path = join(its.site.incoming, `${name}.out`);
    const was = readFileSync(path);
    writeFileSync(path, 'LATER\n');
    const { folder, ran } = await make(1, its.jobs.later, ...its.keys);
    assert.match(ran.text, /^digest-changed +\S+\.out: not the SHA-256 of the custody record$/m);
    assert.match(ran.text, /^hash-wrong /m);
    const { code, text } = (checkers[0] as Checker).check(folder);
    assert.equal(code, 1);
    assert.match(text, /^FAILED .*upload-1: not what the custody record says$/m);
    assert.match(text, /^FAILED {2}found when the package was made: digest-changed /m);
    assert.match(text, /\nFAILED: [1-9]\d* checks failed/);
    assert.match(readFileSync(join(folder, 'README.txt'), 'utf8'), /SOME OF IT IS NOT AS RECEIVED/);
    assert.match(readFileSync(join(folder, 'index.html'), 'utf8'), /<p class="bad">digest-changed /);
    await its.expect(1, 'evidence', '--verify', folder);
    // A link made by the web user does not lead root anywhere.
    unlinkSync(path);
    symlinkSync('/etc/passwd', path);
    const linked = await make(1, its.jobs.later, ...its.keys);
    assert.match(linked.ran.text, /^stream-missing /m);
    assert.ok(![...filesOf(linked.folder).values()].some((bytes) => bytes.includes('root:x:0')));
    unlinkSync(path);
    writeFileSync(path, was);
  });

  it('finds a record that no longer matches its checkpoint', async () => {
    const path = custodyOf(its.site);
    const was = readFileSync(path);
    writeFileSync(path, was.toString('latin1').replace('"remoteUser":"client2"', '"remoteUser":"client9"'), 'latin1');
    const { ran } = await make(1, its.jobs.twice, ...its.keys);
    writeFileSync(path, was);
    assert.match(ran.text, /^checkpoint-changed |^custody-edited /m);
  });

  it('contains what a client signed, sealed or not, and reports changes by the server', async () => {
    const { site } = its;
    const signer = makeSigner('client3');
    writeResultKeys(resultKeysOf(site), 'client3', [keyLine(signer)]);
    const plant = (number: number, more: Partial<SignedUpload> = {}): string => {
      const jobId = `server_1_1085355126_0000${number}`;
      const own = { fields: { ClientId: 'client3' }, custody: { clientId: 'client3', fileName: 'host.sh' } };
      plantSigned(site, { name: `client3_2026112400000${number}_00001_host.sh`, jobId, signer, ...own, ...more });
      return jobId;
    };
    const encrypter = new Encrypter();
    encrypter.addRecipient(await identityToRecipient(await generateIdentity()));
    const sealed = Buffer.from(await encrypter.encrypt('for one pair of eyes\n'));
    const { folder } = await make(0, plant(1), plant(2, { out: sealed }), ...its.keys);
    const wanted = linesOf((await its.expect(0, 'evidence', '--verify', folder)).text).sort();
    const signed = wanted.filter((line) => line.endsWith('are what the client client3 signed'));
    assert.equal(signed.length, 2);
    const { check } = pick(checkers);
    assert.deepEqual(linesOf(check(folder).text).sort(), wanted);
    // The server edits a stream, and the custody record with it.
    const edited = await make(1, plant(3, { kept: { out: 'another\n' } }));
    assert.match(
      edited.ran.text,
      /^signature-wrong .*not the SHA-256 that the client signed|bytes, and the client signed/m,
    );
    assert.match(check(edited.folder).text, /^FAILED .*: out and err are not what the client client3 signed$/m);
    assert.equal((await its.webjobctl('evidence', '--verify', edited.folder)).exitCode, 1);
    for (const [number, edit, said] of [
      [4, (env: string) => env.replace('KidStatus=0', 'KidStatus=1'), /env: the signature of client3 is wrong$/m],
      [5, (env: string) => env.replace(/^ResultSignature=.*\n/m, ''), /env: the signature of the client was removed$/m],
    ] as const) {
      const { folder: forged } = await make(1, plant(number, { edit }), ...its.keys);
      if (number === 4) assert.match(check(forged).text, said);
      assert.match((await its.expect(1, 'evidence', '--verify', forged)).text, /^FAILED .*env: /m);
    }
  });

  it('contains sealed streams unchanged, too, for an examiner with an identity', async () => {
    const { site } = its;
    const [alice, bob] = [await makeExaminer(), await makeExaminer('hybrid')];
    const signer = makeSigner('client4');
    writeResultKeys(resultKeysOf(site), 'client4', [keyLine(signer)]);
    const own = { signer, client: 'client4', err: '', out: 'the secret\n', recipient: alice.recipient };
    await plantSealed(site, { name: 'alone', ...own });
    await plantSealed(site, { name: 'lied', ...own, plainOut: 'another\n' });
    await plantSealed(site, { name: 'theirs', ...own, recipient: bob.recipient });
    const identity = its.at('identity.txt');
    writeFileSync(identity, `${alice.identity}\n`, { mode: 0o600 });
    const id = (name: string): string => `server_1_1085355126_${name}`;
    const { folder, ran } = await make(0, id('alone'), id('theirs'), '--identity', identity, ...its.keys);
    assert.ok(!ran.stderr.includes('AGE-SECRET-KEY'));
    const files = filesOf(folder);
    const below = (path: string): string => path.split('/').slice(3).join('/');
    const plain = [...files].filter(([path]) => path.endsWith('.plain'));
    assert.deepEqual(
      plain.map(([path, bytes]) => [below(path), bytes]),
      [
        ['upload-1/err.plain', ''],
        ['upload-1/out.plain', 'the secret\n'],
      ],
    );
    const [sealed = ''] = [...files].filter(([path]) => path.endsWith('/out')).map(([, bytes]) => bytes);
    assert.equal(
      String(await openSealed(Buffer.from(sealed, 'latin1'), alice)),
      'the secret\n',
      'beside what is sealed',
    );
    assert.match(
      files.get('data/notes.txt') ?? '',
      /upload-1: not opened: \.out cannot be opened: no identity matched/,
    );
    assert.match(files.get('README.txt') ?? '', /^Sealed streams were opened for it/m);
    const page = [...files].find(([path]) => path.startsWith('pages/') && path.includes('alone'))?.[1] ?? '';
    assert.match(page, /the secret/);
    assert.equal(readRecords(custodyOf(site, 'webjobctl')).at(-1)?.opened, 2);
    const wanted = linesOf((await its.expect(0, 'evidence', '--verify', folder)).text).sort();
    assert.equal(
      wanted.filter((line) => line.endsWith('.plain: as the client sealed it, according to the run record')).length,
      2,
    );
    for (const { name, check } of checkers) assert.deepEqual(linesOf(check(folder).text).sort(), wanted, name);
    // The copy is not what the client says that it sealed.
    const lied = await make(1, id('lied'), '--identity', identity);
    assert.match(lied.ran.text, /^hash-wrong .*lied\.out: its plain text does not match the run record$/m);
    const said = /^FAILED .*out\.plain: not as the client sealed it, according to the run record$/m;
    assert.match(pick(checkers).check(lied.folder).text, said);
    assert.match((await its.expect(1, 'evidence', '--verify', lied.folder)).text, said);
    const none = await make(0, id('alone'));
    assert.ok(![...filesOf(none.folder).keys()].some((path) => path.endsWith('.plain')), 'only when asked for');
  });

  it('proves by checkpoints that enough witnesses have cosigned, and names them', async () => {
    const witnesses = ['one', 'two', 'three'].map((name) => makeWitness(`witness.example/${name}`));
    const lines = witnesses.map(({ verifierKey }, index) => `witness w${index + 1} ${verifierKey}\n`);
    writeFileSync(its.at('policy'), `${lines.join('')}group some any w1 w2\ngroup both all some w3\nquorum both\n`);
    const asked = [its.jobs.later, ...its.keys, '--witnesses', its.at('policy')];
    const before = await make(0, ...asked);
    assert.match(
      readFileSync(join(before.folder, 'data/notes.txt'), 'utf8'),
      /too few witnesses have cosigned any checkpoint/,
    );
    assert.ok(!existsSync(join(before.folder, 'data/checkpoints')));
    const kept = join(its.site.base, 'config', 'nph-webjob', 'custody-checkpoints.server_1');
    const text = splitCheckpoints(readFileSync(kept, 'utf8')).at(-1)?.text ?? '';
    const add = async (...lines: string[]): Promise<void> => {
      writeFileSync(its.at('cosigned'), text + lines.join(''));
      await its.expect(0, 'custody', 'checkpoint', '--add', its.at('cosigned'), '--key', its.at('custody.pub'));
    };
    const [one, two, three] = witnesses.map((witness) => witness.cosign(text));
    await add(two ?? '', three ?? '');
    const { folder } = await make(0, ...asked);
    const wanted = linesOf((await its.expect(0, 'evidence', '--verify', folder)).text).sort();
    const said = 'cosigned by witness.example/two witness.example/three, as data/keys/witnesses/policy requires';
    assert.equal(wanted.filter((line) => line.endsWith(said)).length, 1);
    for (const { name, check } of checkers) assert.deepEqual(linesOf(check(folder).text).sort(), wanted, name);
    await its.expect(0, 'evidence', '--verify', folder, '--witnesses', its.at('policy'));
    writeFileSync(its.at('other'), `${makeWitness('elsewhere').verifierKey}\n`);
    const other = await its.expect(1, 'evidence', '--verify', folder, '--witnesses', its.at('other'));
    assert.match(other.text, /^FAILED .*not cosigned as the given policy requires: too few witnesses/m);
    const [path = ''] = [...filesOf(folder).keys()].filter((file) => file.endsWith('.newest.checkpoint'));
    const fails = async (what: string, change: () => void, pattern: RegExp): Promise<void> => {
      const was = filesOf(folder);
      change();
      listAgain(folder);
      const { name, check } = pick(checkers);
      assert.match(check(folder).text, pattern, `${what}: ${name}`);
      assert.match((await its.expect(1, 'evidence', '--verify', folder)).text, /^FAILED .*not cosigned as /m, what);
      for (const [file, bytes] of was) writeFileSync(join(folder, file), bytes, 'latin1');
    };
    const rewrite =
      (...lines: (string | undefined)[]) =>
      () =>
        writeFileSync(join(folder, path), text + lines.join(''));
    const few = /^FAILED .*: not cosigned as data\/keys\/witnesses\/policy requires$/m;
    await fails('one is missing', rewrite(two), few);
    await fails('two of a group that one does for', rewrite(one, two), few);
    const bend = (bytes: Buffer): Buffer => bytes.fill(bytes.readUInt8(40) ^ 1, 40, 41);
    const wrong = /^FAILED .*: the cosignature of witness\.example\/three is wrong$/m;
    await fails('a wrong one', rewrite(two, witnesses[2]?.cosign(text, 1_790_000_000, bend)), wrong);
    await fails('a time that is no time', rewrite(two, witnesses[2]?.cosign(text, 253_402_300_800)), wrong);
    const [key = ''] = [...filesOf(folder).keys()].filter((file) => file.endsWith(`${idOf(lines[2])}.pem`));
    const [another = ''] = [...filesOf(folder).keys()].filter((file) => file.endsWith(`${idOf(lines[1])}.pem`));
    await fails('another key', () => copyFileSync(join(folder, another), join(folder, key)), wrong);
    await fails('no key', () => rmSync(join(folder, key)), few);
  });

  it('leaves out what names other clients, too, and says so', async () => {
    const { site, run, at } = its;
    const program = addCommand(site, 'client1', 'two.sh', '#!/bin/sh\ntwo\n');
    await its.expect(
      0,
      'sign',
      'payload',
      '--key',
      at('author.key'),
      '--client',
      'client1',
      '--client',
      'client2',
      program,
    );
    configure(site, { EnableCustody: 'N' });
    const adopted = await run({ clientId: 'client1', fileName: 'two.sh', out: 'adopted\n' });
    const others = await run({ clientId: 'client2', fileName: 'ps.sh', out: 'adopted, too\n' });
    configure(site, {});
    await its.expect(0, 'custody', 'adopt', '--reason', 'a test');
    const { folder } = await make(0, adopted, ...its.keys);
    assert.ok(![...filesOf(folder)].some(([path, bytes]) => `${path} ${bytes}`.includes('client2')));
    const notes = readFileSync(join(folder, 'data', 'notes.txt'), 'utf8');
    assert.match(
      notes,
      /upload-1: it was compared with the custody record, whose entry names other jobs and is left out$/m,
    );
    assert.match(notes, /the manifest of two\.sh names other clients, too$/m);
    const both = await make(0, adopted, others, ...its.keys);
    const entries = [...filesOf(both.folder)].filter(
      ([path, bytes]) => path.endsWith('/custody.json') && bytes.includes('"event":"adopt"'),
    );
    assert.equal(entries.length, 2, 'where all of them were asked for');
    assert.equal(pick(checkers).check(both.folder).code, 0);
  });

  it('finds an unlisted file, a missing one, and one that is not a regular file', async () => {
    const { folder } = await make(0, its.jobs.twice, ...its.keys);
    const fails = async (said: RegExp): Promise<void> => {
      const { name, check } = pick(checkers);
      const { code, text } = check(folder);
      assert.equal(code, 1, name);
      assert.match(text, said, name);
      assert.match((await its.expect(1, 'evidence', '--verify', folder)).text, said);
    };
    for (const place of ['data/more', 'more']) writeFileSync(join(folder, place), '');
    await fails(
      /^FAILED {2}more: not in tagmanifest-sha256\.txt$[\s\S]*^FAILED {2}data\/more: not in manifest-sha256\.txt$/m,
    );
    for (const place of ['data/more', 'more', 'bag-info.txt']) rmSync(join(folder, place));
    symlinkSync('bagit.txt', join(folder, 'link'));
    await fails(/^FAILED {2}link: a link[\s\S]*^FAILED {2}bag-info\.txt: missing/m);
  });
});

/** The key id in a line of a policy. */
function idOf(line = ''): string {
  return line.split('+')[1] ?? '';
}

/** The format of the time in a time stamp differs. */
function withoutTime(line: string): string {
  return line.replace(/ existed at .*$/, ' existed');
}

describe(`${PACKAGES} random packages, ${MUTATIONS} bytes changed, seed ${SEED}`, () => {
  let folder: string;
  let script: string;
  /** Sealed and signed uploads beside those of the site. */
  const more: string[] = [];
  before(async () => {
    // Without the forgeries above.
    its?.close();
    its = await makePackageSite();
    checkers = makeCheckers(its.at(''));
    const signer = makeSigner('client3');
    writeResultKeys(resultKeysOf(its.site), 'client3', [keyLine(signer)]);
    const { identity, recipient } = await makeExaminer();
    writeFileSync(its.at('identity.txt'), `${identity}\n`, { mode: 0o600 });
    for (const number of [1, 2]) {
      const jobId = `server_1_1085355126_1000${number}`;
      const own = { fields: { ClientId: 'client3' }, custody: { clientId: 'client3', fileName: 'host.sh' } };
      const name = `client3_2026112400000${number}_00001_host.sh`;
      plantSigned(its.site, { name, jobId, signer, ...own, out: 'signed\n'.repeat(number) });
      await plantSealed(its.site, {
        name: `sealed${number}`,
        signer,
        client: 'client3',
        out: '\0',
        err: 'e\n',
        recipient,
      });
      more.push(jobId, `server_1_1085355126_sealed${number}`);
    }
    // Before a witness signs: without a policy nothing confirms its line.
    ({ folder } = await make(0, its.jobs.twice, ...its.keys));
    const witness = makeWitness('witness.example/one');
    writeFileSync(its.at('policy'), `${witness.verifierKey}\n`);
    await its.expect(0, 'custody', 'checkpoint', '--key', its.at('custody.key'));
    const kept = join(its.site.base, 'config', 'nph-webjob', 'custody-checkpoints.server_1');
    const text = splitCheckpoints(readFileSync(kept, 'utf8')).at(-1)?.text ?? '';
    writeFileSync(its.at('cosigned'), text + witness.cosign(text));
    await its.expect(0, 'custody', 'checkpoint', '--add', its.at('cosigned'), '--key', its.at('custody.pub'));
    script = its.at('VERIFY.sh');
    copyFileSync(join(folder, 'VERIFY.sh'), script);
  });
  after(() => its.close());

  it('are OK under every shell', async (context) => {
    const ids = [...Object.values(its.jobs), ...more];
    const kinds = new Map<string, number>();
    const note = (kind: string, is = true): void => void (is && kinds.set(kind, (kinds.get(kind) ?? 0) + 1));
    for (let index = 0; index < PACKAGES; index++) {
      const jobs = ids.filter(() => random() < 0.25);
      const selector =
        jobs.length > 0
          ? jobs
          : pick([
              ['--client', 'client1'],
              ['--command', '*'],
              ['--case', '4711'],
            ]);
      const keys = random() < 0.7 ? its.keys : [];
      const identity = random() < 0.4 ? ['--identity', its.at('identity.txt')] : [];
      const witnesses = random() < 0.3 ? ['--witnesses', its.at('policy')] : [];
      const made = await make(0, ...selector, ...keys, ...identity, ...witnesses);
      const files = filesOf(made.folder);
      const has = (pattern: RegExp): boolean => [...files.keys()].some((path) => pattern.test(path));
      note('held', selector.includes('--case'));
      note(
        'packed',
        [...files.keys()].some((path) => path.includes(its.jobs.packed)),
      );
      note(
        'several attempts',
        [...files.keys()].some((path) => path.includes(its.jobs.twice)),
      );
      note(
        'sealed',
        [...files.keys()].some((path) => path.includes('_sealed')),
      );
      note('opened', has(/\.plain$/));
      note('signed', has(/^data\/keys\/clients\//));
      note('unsigned', !has(/^data\/keys\/checkpoints\//));
      note('cosigned', has(/^data\/keys\/witnesses\//));
      assert.equal(made.ran.text.split('\n').length, 3, made.ran.text);
      // The usual run has little time.
      for (const { name, check } of PACKAGES > 1 ? checkers : [pick(checkers)]) {
        const { code, text } = check(made.folder);
        assert.equal(code, 0, `${index} ${name}: ${selector.join(' ')}\n${text}`);
      }
      rmSync(made.folder, { recursive: true });
    }
    const counts = [...kinds].map(([kind, number]) => `${number} ${kind}`);
    context.diagnostic(`${PACKAGES} packages, of which ${counts.join(', ')}`);
    if (PACKAGES >= 50) assert.equal(kinds.size, 8, counts.join());
  });

  it('are FAILED wherever one byte is changed', () => {
    const files = [...filesOf(folder)].filter(([, bytes]) => bytes !== '').map(([path]) => path);
    for (let index = 0; index < MUTATIONS; index++) {
      const path: string = MUTATIONS < files.length ? pick(files) : (files[index % files.length] ?? '');
      const at = Math.floor(random() * lstatSync(join(folder, path)).size);
      const putBack = changeByte(join(folder, path), at, 1 + Math.floor(random() * 255));
      const { name, check } = pick(checkers);
      // A script cannot prove that it is unchanged, so the recipient compares its digest.
      const { code, text } = check(folder, path === 'VERIFY.sh' ? script : 'VERIFY.sh');
      putBack();
      assert.equal(code, 1, `${name}: byte ${at} of ${path}\n${text}`);
      assert.match(text, /^FAILED {2}/m);
    }
  });

  it('are FAILED also where the lists were regenerated, in everything that is signed', () => {
    const isSigned = /\/(?:out|env|rdy|custody\.json|custody\.tlog-proof|program\.manifest)$|\.checkpoint$/;
    const files = [...filesOf(folder).keys()].filter((path) => isSigned.test(path));
    assert.equal(files.length, 13);
    for (let index = 0; index < Math.max(3, MUTATIONS / 4); index++) {
      const path: string = MUTATIONS < files.length ? pick(files) : (files[index % files.length] ?? '');
      const at = Math.floor(random() * lstatSync(join(folder, path)).size);
      const putBack = changeByte(join(folder, path), at, 1 + Math.floor(random() * 255));
      listAgain(folder);
      const { name, check } = pick(checkers);
      const { code, text } = check(folder);
      putBack();
      assert.equal(code, 1, `${name}: byte ${at} of ${path}\n${text}`);
    }
  });
});
