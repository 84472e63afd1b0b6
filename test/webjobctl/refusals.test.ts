// What the commands of webjobctl refuse: options that do not go together, values out of range, and
// objects that do not exist. Each ends with its exit code and its message, and changes nothing.
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { configure } from '../../scripts/site.ts';
import { makeLockerSite } from '../support/locker-site.ts';
import { plantPast } from '../support/past-site.ts';
import { readFiles } from '../support/tree.ts';

const its = makeLockerSite({ UseGMT: 'Y' });
after(its.close);
const at = (name: string): string => join(its.site.root, name);
const out = ['--out', at('package')];
const add = ['client', 'add', 'new', '--url', 'http://localhost', '--out', at('new')];
const PG = 'postgresql://127.0.0.1:1/x';

before(async () => {
  configure(its.site, { BatchCommand: 'batch', UseGMT: 'Y' });
  plantPast(its.site, 'UTC', [{ at: new Date(Date.now() - 3 * 86_400_000), jobId: 'one' }]);
  plantPast(its.site, 'UTC', [
    { at: new Date(), jobId: 'nobody', clientId: 'c', command: 'x', put: false, out: false },
  ]);
  mkdirSync(at('kit'));
  mkdirSync(join(its.site.base, 'config', 'nph-webjob'), { recursive: true });
  writeFileSync(join(its.site.base, 'config', 'nph-webjob', 'expect'), '', { mode: 0o600 });
  writeFileSync(at('private.pem'), '-----BEGIN PRIVATE KEY-----\n');
  const keygen = await its.webjobctl('sign', 'keygen', at('key'));
  assert.equal(keygen.exitCode, 0, keygen.stderr);
});

const rows: [words: string[], code: number, message: RegExp][] = [
  [['acts', '--allow', 'verify,fly'], 2, /--allow: unknown act fly/],
  [['alert', '--test', '--dry-run'], 2, /use one of --test and --dry-run/],
  [
    ['assign', 'host.sh', '--to', 'c', '--every', '1h', '--cron', '* * * * *'],
    2,
    /use one of --once, --every and --cron/,
  ],
  [['assign', '-x', '--to', 'c'], 2, /unknown option '-x'/],
  [['assign', '--to', 'c', '--', '-x'], 2, /a command is 1 to 1024 letters.* does not begin with -/],
  [['assign', 'retry', '7'], 1, /there is no assignment 7/],
  [['client', 'add', 'a b', '--generate'], 2, /a client id is 1 to 64 letters, digits, _ and -/],
  [['client', 'add', 'x'.repeat(65), '--generate'], 2, /a client id is 1 to 64 letters/],
  [add, 2, /choose how the client authenticates: --generate, --password-file, --cert, --csr or --signed/],
  [[...add, '--cert', '--days', '10000'], 2, /days are 1 to 9999/],
  [[...add, '--generate', '--password-file', '-'], 2, /use one of --password-file and --generate/],
  [[...add, '--generate', '--threshold', '2'], 2, /--threshold requires --trusted-keys/],
  [[...add, '--generate', '--threshold', '0'], 2, /a threshold is 1 to 999/],
  [['client', 'passwd', 'c', '--generate', '--password-file', '-'], 2, /use one of --password-file and --generate/],
  [['client', 'passwd', 'c'], 2, /use one of --password-file and --generate/],
  [['client', 'renew', 'c', '--apply'], 2, /--apply requires --revoke/],
  [['client', 'renew', 'c', '--new-key', '--csr', 'x'], 2, /use one of --new-key and --csr/],
  [['client', 'result-key', 'c', '--public', 'x', '--out', 'y'], 2, /--public writes no key/],
  [['client', 'result-key', 'nobody'], 4, /there is no client nobody/],
  [['completion'], 2, /name a shell: bash, zsh, fish/],
  [['configtest', '--as', at('kit')], 2, /--probe and --as must be given together/],
  [['configtest', '--probe', 'http://localhost'], 2, /--probe and --as must be given together/],
  [['custody', 'checkpoint'], 2, /use --key, or --unsigned to sign elsewhere/],
  [['custody', 'checkpoint', '--unsigned', '--key', 'x'], 2, /--unsigned cannot be combined with --key/],
  [['custody', 'checkpoint', '--add', 'x'], 2, /--add requires --key/],
  [['custody', 'checkpoint', '--add', 'x', '--key', 'y', '--server', 'z'], 2, /--add takes only --key/],
  [['custody', 'checkpoint', '--unsigned', '--server', 'none'], 4, /no custody record of none in /],
  [['custody', 'adopt', '--reason', ' '], 2, /--reason is empty/],
  [['custody', 'timestamp'], 2, /use one of --tsa, --request and --response/],
  [['custody', 'timestamp', '--request', 'x', '--response', 'y'], 2, /use one of --tsa, --request and --response/],
  [['custody', 'timestamp', '--response', 'y'], 2, /the time stamp is checked with the certificate of its CA/],
  [['diff', 'nobody'], 5, /./],
  [['evidence', 'one'], 2, /evidence requires --out/],
  [['evidence', ...out], 2, /select jobs: job ids, --client, --command, --since, or --case/],
  [['evidence', 'one', '--command', 'x', ...out], 2, /job ids cannot be combined with --command/],
  [['evidence', 'one', '--ca', at('private.pem'), ...out], 2, /contains a private key, which must not be handed over/],
  [['evidence', '--verify', at('kit'), '--client', 'c'], 2, /--verify takes a package, and only --key/],
  [['export'], 2, /export requires one of --csv, --json and --sql/],
  [['export', '--csv', '--sql'], 2, /export requires one of --csv, --json and --sql/],
  [['export', '--sql', '--spreadsheet'], 2, /--spreadsheet requires --csv/],
  [['export', '--sql', '--table', '1x'], 2, /a name is up to 63 letters, digits and _/],
  [['hold', 'add', '--client', 'c', '--job', 'one', '--reason', 'x'], 2, /a hold is for --client or for --job/],
  [['hold', 'add', '--client', 'c', '--reason', ' '], 2, /--reason is empty/],
  [['init', '--prefix', at('s'), '--certificates'], 2, /--certificates requires --tls/],
  [['init', '--prefix', at('s'), '--view-user', 'x'], 2, /--view-user requires --view/],
  [['init', '--prefix', at('s'), '--passwords'], 2, /--passwords requires --certificates/],
  [['init', '--prefix', at('s'), '--apply'], 2, /--apply requires the file that includes the site/],
  [['init', '--prefix', at('s'), '--root', at('r'), '--apply'], 2, /--apply cannot be combined with --root/],
  [['init', '--prefix', at('a b')], 2, /a path of letters, digits and _ \. \/ : \+ @ = , - is needed/],
  [['init', '--prefix', at('s'), '--server-id', 'a/b'], 2, /1 to 64 letters, digits and _ \. -/],
  [['init', '--prefix', at('s'), '--tls', '--server-name', '-x'], 2, /a host name or an address is needed/],
  [['init', '--prefix', at('s'), '--tls', '--tls-port', '65536'], 2, /a port is 1 to 65535/],
  [['--ledger', PG, '--json', 'jobs'], 2, /--config and --ledger cannot be combined/],
  [['jobs', '--state', 'lost'], 2, /states are got, done, failed/],
  [['jobs', '--status', '4xy'], 2, /a status is 404 or 4xx/],
  [['ledger', 'push', '--as', ' x', '--to', PG], 2, /a name is up to 64 letters, digits, blanks/],
  [['note', 'one', ' '], 2, /./],
  [['pack', '--older-than', 'x'], 2, /./],
  [['prune', '--older-than', '0d'], 2, /./],
  [['prune', '--older-than', '1d'], 2, /without a terminal prune requires --yes/],
  [['search', ''], 2, /the text is empty/],
  [['search', 'x', '--in', 'rdy'], 2, /streams are out, err and env/],
  [['show', 'one', '--json', '--out'], 2, /--json shows no stream/],
  [['--json', 'show', 'one', '--err'], 2, /--json shows no stream/],
  [['sign', 'payload', '--key', at('key.key'), '--name', 'x', 'a', 'b'], 2, /--name requires a single file/],
  [
    ['sign', 'payload', '--key', at('key.key'), '--serial', '1'.repeat(16), 'a'],
    2,
    /a serial number has at most 15 digits/,
  ],
  [['sign', 'trust', 'add', at('trusted'), at('key.vkey'), '--weight', '0'], 2, /a weight is 1 to 99/],
  [['sign', 'trust', 'add', at('trusted'), at('key.vkey'), '--weight', '100'], 2, /a weight is 1 to 99/],
  [['unpack', '2020-01-01'], 4, /there is no archive of that name/],
  [['verify', '--checkpoint', 'x'], 2, /--checkpoint and --key must be given together/],
  [['verify', '--witnesses', 'x'], 2, /--witnesses requires --checkpoint/],
  [['verify', 'one', '--since', '1d'], 2, /a job id, --since and --touched cannot be combined/],
  [['verify', 'one', '--sample', '1%'], 2, /a job id, --since and --touched cannot be combined/],
  [['verify', '--since', '1d', '--touched', '1d'], 2, /a job id, --since and --touched cannot be combined/],
  [['verify', '--result-keys', at('nowhere')], 4, /--result-keys: there is no directory /],
];
for (const [words, code, message] of rows)
  it(`refuses ${words.join(' ').replaceAll(its.site.root, '').slice(0, 70)}`, async () => {
    const before = readFiles(its.site.root);
    const { exitCode, stderr, text } = await its.webjobctl(...words);
    assert.match(stderr, message);
    assert.deepEqual([exitCode, text], [code, '']);
    // But for the directory in which a command that waits for a lock would put it.
    assert.deepEqual([...readFiles(its.site.root).keys()], [...before.keys()]);
  });
