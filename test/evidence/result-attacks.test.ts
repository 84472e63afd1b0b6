// A compromised server and what clients signed: it stores what it likes, with a matching custody
// record, and verify finds every result that differs from what its client signed.
import assert from 'node:assert/strict';
import { cpSync, readdirSync, readFileSync, rmSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { RECORD_FIELDS } from 'webjob-protocol';
import { digestPieces } from '../../archive/apart.ts';
import { digestGroup } from '../../archive/archive.ts';
import type { PackedGroup } from '../../archive/manifest.ts';
import type { NoteSigner } from '../../notes/note.ts';
import { makeSite, type Site } from '../../scripts/site.ts';
import { verifyAs } from '../support/evidence-site.ts';
import { runWebjobctl } from '../support/operator.ts';
import { makeSigner, type Signer } from '../support/signed-programs.ts';
import {
  keyLine,
  plantSigned,
  resultKeysOf,
  type SignedUpload,
  signEnv,
  streamsOf,
  writeResultKeys,
} from '../support/signed-results.ts';

const [client1, earlier, client2, stranger] = ['client1', 'client1', 'client2', 'client1'].map(makeSigner) as [
  Signer,
  Signer,
  Signer,
  Signer,
];
/** The key of someone else who claims that it is the client's. */
const posing: NoteSigner = { ...stranger, id: client1.id };
const OUT = 'out of host.sh\n';
const ERR = 'err of host.sh\n';

interface Attack extends Partial<SignedUpload> {
  what: string;
  /** Findings that must be there; others may be too. */
  found: string[];
}

const attacks: Attack[] = [];
const attack = (found: string | string[], what: string, more: Partial<SignedUpload>): void => {
  attacks.push({ what, found: [found].flat(), ...more });
};
/** The server can write any record, even one that matches what it stores. */
const edit = (found: string, what: string, change: (env: string) => string): void =>
  attack(`${found} env`, what, { edit: change });
const without = (name: RegExp) => (env: string) => env.replace(new RegExp(`^(?:${name.source})=.*\n`, 'gm'), '');
const UNSIGNED = /(?:StdOut|StdErr)(?:Bytes|Sha256)|ResultSignature/;

function flip(text: string, at: number): Buffer {
  const bytes = Buffer.from(text);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  return bytes;
}

for (const stream of ['out', 'err'] as const) {
  const text = stream === 'out' ? OUT : ERR;
  const keep = (what: string, kept: string | Buffer): void =>
    attack(`signature-wrong ${stream}`, `.${stream} ${what}`, { kept: { [stream]: kept } });
  for (let at = 0; at < text.length; at++) keep(`with another bit in byte ${at}`, flip(text, at));
  keep('without its last byte', text.slice(0, -1));
  keep('with a byte more', `${text}\n`);
  keep('with a byte in front', ` ${text}`);
  keep('with nothing in it', '');
  keep('with all of another', 'all is well\n');
  keep('twice', text + text);
  attack(`signature-wrong ${stream}`, `.${stream} with another length, where nothing was printed`, {
    out: '',
    err: '',
    kept: { [stream]: 'found nothing\n' },
  });
}
attack(['signature-wrong out', 'signature-wrong err'], 'the streams in each other’s place', {
  kept: { out: ERR, err: OUT },
});

for (const field of RECORD_FIELDS)
  for (const [what, value] of [
    ['another value', 'changed'],
    ['no value', ''],
  ])
    edit(field === 'ClientId' ? 'signature-key' : 'signature-wrong', `${what} of ${field}`, (env) =>
      env.replace(new RegExp(`^${field}=.*$`, 'm'), `${field}=${value}`),
    );
for (const field of ['StdOutBytes', 'StdOutSha256', 'StdErrBytes', 'StdErrSha256']) {
  edit('signature-wrong', `another ${field}`, (env) =>
    env.replace(
      new RegExp(`^(${field}=.*)([0-9a-f])$`, 'm'),
      (_, start, last) => `${start}${last === '1' ? '2' : '1'}`,
    ),
  );
  edit('signature-wrong', `no ${field}`, without(new RegExp(field)));
  edit('signature-wrong', `${field} twice`, (env) => env.replace(new RegExp(`^${field}=.*\n`, 'm'), '$&$&'));
  edit('signature-wrong', `${field} that is not one`, (env) =>
    env.replace(new RegExp(`^${field}=.*$`, 'm'), `${field}=x`),
  );
}
edit('signature-wrong', 'an exit code that was not 0', (env) => env.replace('KidStatus=0', 'KidStatus=1'));
edit('signature-wrong', 'a field more', (env) => env.replace('StdOutBytes', 'Case=1\nStdOutBytes'));
edit('signature-wrong', 'a field behind the signature', (env) => `${env}Case=1\n`);
edit('signature-wrong', 'an empty line behind the signature', (env) => `${env}\n`);
edit('signature-wrong', 'the end of the last line cut off', (env) => env.slice(0, -1));
edit('signature-wrong', 'line ends of DOS', (env) => env.replaceAll('\n', '\r\n'));
edit('signature-wrong', 'a byte that is not UTF-8', (env) => env.replace('Hostname=host', 'Hostname=h\ufffd'));
edit('signature-wrong', 'an outer job', (env) =>
  env.replace('StdOutBytes', 'OuterJid=server_1_1085355126_00001\nStdOutBytes'),
);
edit('signature-wrong', 'the streams that are kept in a record that fits them', (env) =>
  signEnv(without(UNSIGNED)(env), streamsOf('all is well\n', ''), posing),
);

for (const [what, change] of Object.entries({
  'is of another text': (line) => line.replace(/[A-Za-z0-9]{8}$/, '') + line.slice(-8).toLowerCase(),
  'is zeros': (line) =>
    line.replace(/ .*/, ` ${Buffer.concat([Buffer.from(client1.id, 'hex'), Buffer.alloc(64)]).toString('base64')}`),
  'has 63 bytes': (line) => resized(line, 67),
  'has 65 bytes': (line) => resized(line, 69),
  'has no bytes': (line) => resized(line, 4),
  'is not base64': (line) => line.replace(/ .*/, ' !!!'),
  'is empty': () => 'ResultSignature=',
  'has no name': (line) => line.replace('=client1 ', '= '),
  'comes twice': (line) => `${line}\n${line}`,
  'is a whole signature line': (line) => line.replace('=', '=— '),
} satisfies Record<string, (line: string) => string>))
  edit('signature-wrong', `a signature that ${what}`, (env) => env.replace(/ResultSignature=.*/, change));

function resized(line: string, length: number): string {
  const bytes = Buffer.concat([Buffer.from(line.split(' ')[1] ?? '', 'base64'), Buffer.alloc(8)]).subarray(0, length);
  return line.replace(/ .*/, ` ${bytes.toString('base64')}`);
}

for (const [what, signer, found] of [
  ['a key that nobody knows', stranger, 'signature-key'],
  ['a key that gives itself out for that of the client', posing, 'signature-wrong'],
  ['the key of another client', client2, 'signature-key'],
  ['the key of another client under the name of this one', { ...client2, name: 'client1' }, 'signature-key'],
  [
    'the key of another client with name and id of this one',
    { ...client2, name: 'client1', id: client1.id },
    'signature-wrong',
  ],
  ['the key of the client under another name', { ...client1, name: 'client3' }, 'signature-key'],
  ['the key of the client with another id', { ...client1, id: '00000000' }, 'signature-key'],
  ['a key that has ended', earlier, 'signature-key'],
  [
    'the key of the client, over a manifest',
    { ...client1, sign: (text) => client1.sign(text.replace('webjob-result', 'webjob-manifest')) },
    'signature-wrong',
  ],
  [
    'the key of the client, over the record alone',
    { ...client1, sign: (text) => client1.sign(text.slice(text.indexOf('\n') + 1)) },
    'signature-wrong',
  ],
  ['the key of the client, over nothing', { ...client1, sign: () => client1.sign('') }, 'signature-wrong'],
] satisfies [string, NoteSigner, string][])
  attack(`${found} env`, `a record by ${what}`, { signer });

const SIGNED_JOB = 'server_1_1085355126_00723';
for (const [what, jobId] of [
  ['of the same second', 'server_1_1085355126_00724'],
  ['of another server', 'server_2_1085355126_00723'],
  ['of another day', 'server_1_1185355126_00723'],
  ['that is none', 'NA'],
] as const)
  attack(['signature-moved env'], `a result moved to a job ${what}`, { jobId, fields: { Jid: SIGNED_JOB } });
attack(['signature-moved env'], 'a result without a job moved to one', { jobId: SIGNED_JOB, fields: { Jid: 'NA' } });
for (const clientId of ['client2', 'client3', 'client', 'Client1'])
  attack(['signature-moved env'], `a result moved to ${clientId}`, { custody: { clientId } });
for (const fileName of ['other.sh', 'host', 'host.sh.sh', 'Host.sh'])
  attack(['signature-moved env'], `a result moved to ${fileName}`, { custody: { fileName } });
attack(['signature-moved env'], 'a result of client2 given out for that of client1', {
  signer: client2,
  fields: { ClientId: 'client2' },
});

edit('signature-missing', 'all that is ours taken out', without(UNSIGNED));
edit('signature-missing', 'all taken out, and the record that of a client without a key', (env) =>
  without(UNSIGNED)(env).replace('ClientId=client1', 'ClientId=legacy'),
);
attack('signature-missing env', 'all taken out, and the custody record that of a client without a key', {
  edit: without(UNSIGNED),
  custody: { clientId: 'legacy' },
});
attack('signature-missing env', 'all taken out, without a custody record', { edit: without(UNSIGNED), custody: false });
attack('signature-missing env', 'all taken out, and the streams changed to what the record says', {
  kept: { out: 'all is well\n' },
  edit: without(UNSIGNED),
});
edit('signature-missing', 'an empty record', () => '');
edit('signature-missing', 'a record of one line', () => 'Version=webjob\n');
edit('signature-missing', 'a record that is longer than any', (env) => `${env}${'x'.repeat(1024 * 1024)}\n`);
edit('signature-wrong', 'the signature taken out', without(/ResultSignature/));
edit('signature-wrong', 'the signature taken out, and the client another', (env) =>
  without(/ResultSignature/)(env).replace('ClientId=client1', 'ClientId=legacy'),
);
edit('signature-missing', 'the signature of another name', (env) =>
  without(UNSIGNED)(env).concat('Signature=client1 AAAA\n'),
);

describe('attacks on results by a stolen server', () => {
  let site: Site;
  let copy: string;
  let found: Set<string>;
  const nameOf = (index: number): string => `job${String(index).padStart(4, '0')}`;

  before(async () => {
    site = makeSite({ settings: { EnableCustody: 'Y' } });
    const keys = resultKeysOf(site);
    const ended = keyLine(earlier, '2000-01-01T00:00:00Z', '2020-01-01T00:00:00Z');
    writeResultKeys(keys, 'client1', [ended, keyLine(client1)]);
    writeResultKeys(keys, 'client2', [keyLine(client2)]);
    copy = join(site.root, 'copy');
    cpSync(keys, copy, { recursive: true });
    for (const [index, { what, found, ...more }] of attacks.entries())
      plantSigned(site, { signer: client1, out: OUT, err: ERR, ...more, name: nameOf(index) });
    plantSigned(site, { signer: client1, name: 'honest' });
    plantSigned(site, { signer: client1, name: 'nothing', out: '', err: '' });
    found = new Set(await verifyAs([site.propertiesFile]));
  });
  after(() => site.remove());

  it(`are found, all ${attacks.length} of them`, (context) => {
    const missed = attacks.filter((one, index) =>
      one.found.some((kind) => !found.has(kind.replace(' ', ` ${nameOf(index)}.`))),
    );
    context.diagnostic(`${attacks.length - missed.length} of ${attacks.length} attacks on results were found out`);
    assert.deepEqual(
      missed.map(({ what, found: wanted }) => `${what}: no ${wanted.join(' and ')}`),
      [],
    );
    assert.ok(attacks.length >= 150, String(attacks.length));
  });

  it('are not found in results that are as they were signed', () => {
    assert.deepEqual(
      [...found].filter((line) => /honest|nothing/.test(line)),
      [],
    );
  });

  it('are found in archives as well, where honest results are not reported', async () => {
    const signatures = async (): Promise<string | undefined> =>
      / \d+ signed by .*$/m.exec((await runWebjobctl(['--config', site.propertiesFile, 'verify'])).stderr)?.[0];
    const before = await signatures();
    assert.ok(before);
    const past = new Date(Date.now() - 40 * 86_400_000);
    for (const file of readdirSync(site.incoming)) utimesSync(join(site.incoming, file), past, past);
    const { code, stderr } = await runWebjobctl(['--config', site.propertiesFile, 'pack', '--older-than', '30d']);
    assert.ok(code === 0, stderr);
    assert.equal(await signatures(), before);
    const packed = await verifyAs([site.propertiesFile]);
    const isFound = (name: string, one: string): boolean =>
      packed.some(
        (line) => line.startsWith(`${one.split(' ')[0]} packed/`) && line.endsWith(`${name}.${one.split(' ')[1]}`),
      );
    const missed = attacks.filter((one, index) => one.found.some((kind) => !isFound(nameOf(index), kind)));
    assert.deepEqual(
      missed.map(({ what }) => what),
      [],
    );
    assert.deepEqual(
      packed.filter((line) => /honest|nothing/.test(line)),
      [],
    );
    const unpack =
      readdirSync(join(site.base, 'packed'))
        .find((name) => name.endsWith('.jsonl'))
        ?.slice(0, -6) ?? '';
    assert.equal((await runWebjobctl(['--config', site.propertiesFile, 'unpack', unpack])).code, 0);
  });

  it('are found with a copy of the keys where those of the site were replaced', async () => {
    const keys = resultKeysOf(site);
    plantSigned(site, { signer: stranger, name: 'forged', out: 'all is well\n' });
    writeResultKeys(keys, 'client1', [keyLine(stranger)]);
    const here = await verifyAs([site.propertiesFile]);
    assert.deepEqual(
      here.filter((line) => line.includes('forged')),
      [],
    );
    assert.ok(here.includes('signature-key honest.env'));
    const there = await verifyAs([site.propertiesFile], '--result-keys', copy);
    assert.deepEqual(
      there.filter((line) => /forged|honest/.test(line)),
      ['signature-key forged.env'],
    );
    rmSync(keys, { recursive: true });
    const gone = await verifyAs([site.propertiesFile]);
    assert.ok(gone.includes('signature-key honest.env'));
  });
});

describe('attacks on packed results by a stolen server', () => {
  let site: Site;
  before(() => {
    site = makeSite({ settings: { EnableCustody: 'Y' } });
    writeResultKeys(resultKeysOf(site), 'client1', [keyLine(client1)]);
  });
  after(() => site.remove());

  it('are found however large the results are', async () => {
    const [out, large] = [3_000_000, 70_000_000].map((bytes) => Buffer.alloc(bytes, 'all of a disk\n'));
    assert.ok(out && large);
    const plant = (name: string, more: Partial<SignedUpload> = {}): void =>
      plantSigned(site, { signer: client1, name, out, ...more });
    plant('honest');
    plant('changed', { out: large, kept: { out: Buffer.concat([large.subarray(0, -1), Buffer.of(0)]) } });
    plant('edited', { edit: (env) => env.replace('KidStatus=0', 'KidStatus=1') });
    plant('small', { out: 'x', kept: { out } });
    const [, honest = ''] = /^Jid=(.*)$/m.exec(readFileSync(join(site.incoming, 'honest.rdy'), 'utf8')) ?? [];
    const past = new Date(Date.now() - 40 * 86_400_000);
    for (const file of readdirSync(site.incoming)) utimesSync(join(site.incoming, file), past, past);
    const { code, stderr } = await runWebjobctl(['--config', site.propertiesFile, 'pack', '--older-than', '30d']);
    assert.ok(code === 0, stderr);
    const found = await verifyAs([site.propertiesFile]);
    assert.deepEqual(
      found
        .filter((line) => line.startsWith('signature-'))
        .map((line) => line.replace(/packed\/\S+ /, ''))
        .sort(),
      ['signature-wrong changed.out', 'signature-wrong edited.env', 'signature-wrong small.out'],
    );
    assert.ok(!found.some((line) => line.includes('honest')));
    const told = await runWebjobctl(['--config', site.propertiesFile, 'verify', honest]);
    assert.match(told.stderr, /^webjobctl: 1 signed by their clients, 0 not signed$/m);
  });

  it('are reported as unreadable where the archive is damaged', () => {
    const [manifest = ''] = readdirSync(join(site.base, 'packed')).filter((name) => name.endsWith('.jsonl'));
    const path = join(site.base, 'packed', manifest);
    const archive = path.replace(/jsonl$/, 'tar.gz');
    const [group] = readFileSync(path, 'utf8')
      .split('\n')
      .filter((line) => line.includes('"honest"'))
      .map((line) => JSON.parse(line) as PackedGroup);
    assert.ok(group);
    assert.equal(digestGroup(archive, group, 10).sha256.out, group.files.out.sha256);
    assert.equal(digestGroup(archive, group, 10).record.length, 10);
    assert.throws(() => digestGroup(archive, { ...group, length: group.length - 9 }, 10), /: damaged, /);
    assert.throws(
      () => digestGroup(archive, { ...group, name: 'another' }, 10),
      /: damaged, another\.\w+ is not there/,
    );
    assert.throws(() => digestGroup(`${archive}.gone`, group, 10), /gone: ENOENT/);
    const { offset, length } = group;
    const pieces = { file: archive, offset, length, kept: 1, keptBytes: 3 };
    assert.equal(digestPieces({ ...pieces, sizes: [0, 512, 0] }).kept.length, 3);
    assert.throws(() => digestPieces({ ...pieces, sizes: [512, 10_000_000_000] }), /it ends early/);
    const longer = { ...group.files, rdy: { ...group.files.rdy, bytes: 1_000_000 } };
    assert.throws(() => digestGroup(archive, { ...group, files: longer }, 10), /: damaged, /);
  });
});
