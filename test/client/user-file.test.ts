// The user file as httpd reads it: webjobctl sees every user that httpd would accept, `client
// remove` removes exactly that, and all other lines keep every byte.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { isClientId } from 'webjob-protocol';
import { readClientIds, readUserFile, removeUser, setUser } from '../../admin/clients/userfile.ts';
import { obtainHtpasswd } from '../../scripts/httpd-package.ts';
import { write } from '../support/deployment-guide.ts';
import { type Apache, formatBasics, startApache } from '../support/deployment-httpd.ts';
import { type Ground, makeGround } from '../support/operator.ts';

/** `foo`. */
const HASH = '{SHA}C+7Hteo/D9vJXQ3UfzxbwnXaijM=';
const MODULES = 'mpm_event cgid auth_basic authn_core authn_file authz_core authz_user';

obtainHtpasswd();
const ground: Ground = makeGround();
const userFile = join(ground.root, 'users');
let httpd: Apache;

before(async () => {
  const root = join(ground.root, 'httpd');
  const conf = join(root, 'httpd.conf');
  mkdirSync(join(root, 'htdocs'), { recursive: true });
  write(join(root, 'htdocs', 'index'), 'in\n');
  const guard = `DocumentRoot "${root}/htdocs"
<Directory "${root}/htdocs">
  AuthType Basic
  AuthName users
  AuthUserFile "${userFile}"
  Require valid-user
</Directory>
`;
  httpd = await startApache({
    serverRoot: root,
    configurationFile: conf,
    errorLog: join(root, 'error.log'),
    portCount: 1,
    configure: (ports) => write(conf, `ServerRoot "${root}"\n${formatBasics(root, ports, MODULES)}${guard}`),
  });
});
after(async () => {
  await httpd?.stop();
  ground.remove();
});

/** httpd's answer to a user with this password; a name is bytes. */
function askAs(name: string, password = 'foo'): Promise<number> {
  const auth = Buffer.from(`${name}:${password}`, 'latin1').toString('base64');
  return new Promise((resolve, reject) => {
    const options = { port: httpd.ports[0], path: '/index', headers: { authorization: `Basic ${auth}` }, agent: false };
    request(options, (response) => resolve(response.resume().statusCode ?? 0))
      .on('error', reject)
      .end();
  });
}

const fill = (text: string): void => writeFileSync(userFile, Buffer.from(text, 'latin1'), { mode: 0o644 });
const text = (): string => readFileSync(userFile, 'latin1');

/** Texts of a user file, and whether httpd then admits client7. */
const WRITINGS: [what: string, text: string, letsIn: boolean][] = [
  ['a line', `client7:${HASH}\n`, true],
  ['blanks before it', `  client7:${HASH}\n`, true],
  ['tabs before it, blanks behind it', `\t \tclient7:${HASH}  \t\n`, true],
  ['a vertical tab and a form feed before it', `\x0b\x0cclient7:${HASH}\n`, true],
  ['a line that ends as on DOS', `other:x\r\nclient7:${HASH}\r\n`, true],
  ['no end of the last line', `other:x\nclient7:${HASH}`, true],
  ['two colons', `client7::${HASH}\n`, true],
  ['a name in two lines', `cli\\\nent7:${HASH}\n`, true],
  ['a name in two lines that end as on DOS', `cli\\\r\nent7:${HASH}\r\n`, true],
  ['two lines, the second one good', `client7:x\nclient7:${HASH}\n`, false],
  ['two lines, the first one good', `client7:${HASH}\n client7:x\n`, true],
  ['a second line without a colon in front', `client7\nclient7:${HASH}\n`, false],
  ['a comment', ` #client7:${HASH}\n`, false],
  ['a comment that goes on', `# all of them \\\nclient7:${HASH}\n`, false],
  ['a line that begins in the one before it', `other:x\\\nclient7:${HASH}\n`, false],
  ['another name that ends so', `xclient7:${HASH}\n`, false],
  ['a blank behind the name', `client7 :${HASH}\n`, false],
  ['a no-break space before it', `\xa0client7:${HASH}\n`, false],
  ['a byte order mark before it', `\xef\xbb\xbfclient7:${HASH}\n`, false],
  ['a number sign before its colon', `client7#:${HASH}\n`, false],
];

describe('the user file', () => {
  for (const [what, written, letsIn] of WRITINGS) {
    it(`is read as httpd reads it: ${what}`, async () => {
      const others = `first:${HASH}\nM\xfcller:${HASH}\n`;
      fill(others + written);
      assert.equal(await askAs('client7'), letsIn ? 200 : 401);
      const isSeen = readUserFile(userFile).some(({ name }) => name === 'client7');
      if (letsIn) assert.ok(isSeen, 'whom httpd lets in is seen');
      assert.equal(removeUser(userFile, 'client7'), isSeen);
      assert.equal(await askAs('client7'), 401);
      assert.ok(text().startsWith(others), 'the lines of others keep every byte');
      assert.equal(await askAs('M\xfcller'), 200);
      // httpd also accepts a line that is added after it.
      setUser(userFile, 'client7', 'secret');
      assert.deepEqual([await askAs('client7', 'secret'), await askAs('client7')], [200, 401]);
      assert.equal(await askAs('first'), 200);
    });
  }

  it('keeps every byte of names that are not UTF-8 when another user is added', async () => {
    const others = `M\xfcller:${HASH}\n\xff\xfe:${HASH}\r\n\n   # Jos\xe9\n Jos\xe9:${HASH}\n`;
    fill(others);
    setUser(userFile, 'client8', 'secret');
    assert.ok(text().startsWith(others));
    assert.deepEqual([await askAs('M\xfcller'), await askAs('Jos\xe9'), await askAs('\xff\xfe')], [200, 200, 200]);
    assert.deepEqual(
      readUserFile(userFile).map(({ name, scheme }) => `${name} ${scheme}`),
      ['M\xfcller sha1', '\xff\xfe sha1', 'Jos\xe9 sha1', 'client8 bcrypt'],
    );
    fill('J\xc3\xbcrgen:x\n');
    assert.deepEqual(readUserFile(userFile), [{ name: 'Jürgen', scheme: 'other' }]);
  });

  it('gets a line of its own after one that ends in a backslash', async () => {
    for (const open of ['other:x\\', 'other:x\\\n', 'other:x\\\r\n']) {
      fill(open);
      setUser(userFile, 'client8', 'secret');
      assert.equal(await askAs('client8', 'secret'), 200, JSON.stringify(open));
      assert.ok(removeUser(userFile, 'client8'));
      assert.equal(await askAs('client8', 'secret'), 401);
    }
  });

  it('is not changed for an unknown user, who is reported', () => {
    fill(`other:x\\`);
    assert.equal(removeUser(userFile, 'client7'), false);
    assert.equal(text(), 'other:x\\');
  });
});

describe('the client ids in a user file', () => {
  const rows: [what: string, text: string][] = [
    ['plain lines', `b:${HASH}\na:${HASH}\n`],
    ['a comment, an empty line and no end of the last line', `#c:${HASH}\n\nb:${HASH}\na:${HASH}`],
    ['two lines of one name', `b:${HASH}\na:${HASH}\nb:x\n`],
    ['blanks and CR LF', ` b:${HASH}\r\n\ta :${HASH}\r\n  # no: user\r\n`],
    ['a line without a name', `:${HASH}\na:${HASH}\n`],
    ['names that are no ASCII', `\xc3\xbc:${HASH}\n\xfc:${HASH}\na:${HASH}\n`],
    ['a name that is no client id', `b:${HASH}\nops.admin:${HASH}\na:${HASH}\n`],
    ['a name of 65 bytes, and of 64', `${'n'.repeat(65)}:${HASH}\n${'m'.repeat(64)}:${HASH}\n`],
    ['a line that goes on', `a:\\\n${HASH}\nb:${HASH}\n`],
    ['nothing', ''],
  ];
  for (const [what, given] of rows)
    it(`are those of its users: ${what}`, () => {
      fill(given);
      const users = readUserFile(userFile).map(({ name }) => name);
      assert.deepEqual(readClientIds(userFile), users.filter(isClientId).sort());
    });
});
