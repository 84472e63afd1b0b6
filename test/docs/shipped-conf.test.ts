// The tables of the code compared with what people read: the two shipped configuration files, and
// the tables of docs/protocol.md. A new setting, status or token that is missing anywhere fails
// here.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { parseKeyValue } from 'webjob-conf';
import { REASONS } from 'webjob-protocol';
import { CONTROLS as SERVER_CONTROLS } from '../../cgi/setting-table.ts';
import { parseSettings, readSettings } from '../../cgi/settings.ts';
import { PATH_TOKENS, TOKENS } from '../../cgi/tokens.ts';
import { CONTROLS as CLIENT_CONTROLS } from '../../client/setting-table.ts';
import { readSettings as readClientSettings } from '../../client/settings.ts';

interface Control {
  key: string;
  allowed: string;
  default: string;
}

/** A line of a shipped file that sets a setting or, commented out, shows how. */
interface ShippedLine {
  key: string;
  value: string;
  isCommentedOut: boolean;
  /** The line before it, without its number sign. */
  comment: string;
}

const project = join(import.meta.dirname, '..', '..');
const SERVER_FILE = join(project, 'conf', 'nph-webjob.cfg');
const CLIENT_FILE = join(project, 'conf', 'webjob.conf');
const MAX_LINE_LENGTH = 100;

function readShipped(path: string): ShippedLine[] {
  const lines = readFileSync(path, 'utf8').split('\n');
  return lines.flatMap((line, index) => {
    const match = /^(#?)([A-Za-z][A-Za-z0-9]*)=(.*)$/.exec(line);
    if (!match) return [];
    const [, sign = '', key = '', value = ''] = match;
    const comment = /^# (.*)$/.exec(lines[index - 1] ?? '')?.[1] ?? '';
    return [{ key, value, isCommentedOut: sign === '#', comment }];
  });
}

/** Its default is derived from another setting, or there is none. */
function hasNoOwnDefault(control: Control): boolean {
  return control.default === '' || control.default.startsWith('<Base>');
}

/** The file with the number sign removed from every setting that is commented out. */
function uncommented(path: string): string {
  return readFileSync(path, 'utf8').replace(/^#(?=[A-Za-z][A-Za-z0-9]*=)/gm, '');
}

function describeShippedFile(name: string, path: string, controls: readonly Control[]): void {
  describe(name, () => {
    const shipped = readShipped(path);
    const find = (key: string): ShippedLine => {
      const line = shipped.find((candidate) => candidate.key === key);
      assert.ok(line, `${name} does not show ${key}`);
      return line;
    };

    it('shows every setting of the table once, and no other', () => {
      assert.deepEqual(shipped.map(({ key }) => key).sort(), controls.map(({ key }) => key).sort());
    });

    it('sets each to its default, and comments out settings without one', () => {
      for (const control of controls) {
        const line = find(control.key);
        assert.equal(line.isCommentedOut, hasNoOwnDefault(control), `${control.key} is commented out`);
        if (!line.isCommentedOut) assert.equal(line.value, control.default, control.key);
      }
    });

    it('gives examples that the table allows', () => {
      for (const control of controls) {
        const { value } = find(control.key);
        assert.notEqual(value, '', control.key);
        assert.match(value, new RegExp(`^(?:${control.allowed})$`), control.key);
      }
    });

    it('explains each setting in the line before it, with its values', () => {
      for (const { key } of controls) assert.match(find(key).comment, /^\S.{5,}(?: \(.+\))?$/, key);
    });

    it('contains only blank lines, comments and settings, in lines of at most 100 columns', () => {
      const { otherLines } = parseKeyValue(readFileSync(path, 'utf8'));
      assert.deepEqual(otherLines, []);
      for (const line of readFileSync(path, 'latin1').split('\n')) {
        assert.match(line, /^(?:|#.*|[A-Za-z][A-Za-z0-9]*=\S+)$/);
        assert.match(line, /^[\x20-\x7e]*$/);
        assert.ok(line.length <= MAX_LINE_LENGTH, `over ${MAX_LINE_LENGTH} columns: ${line}`);
      }
    });
  });
}

describeShippedFile('conf/nph-webjob.cfg', SERVER_FILE, SERVER_CONTROLS);
describeShippedFile('conf/webjob.conf', CLIENT_FILE, CLIENT_CONTROLS);

describe('conf/nph-webjob.cfg as shipped', () => {
  const defaults = parseSettings('', []);

  it('reads as the built-in defaults', () => {
    const { settings, problems } = readSettings(SERVER_FILE);
    assert.deepEqual({ settings, problems }, { settings: defaults, problems: [] });
  });

  it('reads the same with the derived directories uncommented', () => {
    const directories = uncommented(SERVER_FILE)
      .split('\n')
      .filter((line) => /^[A-Za-z]*Directory=/.test(line));
    const problems: string[] = [];
    assert.deepEqual(parseSettings(directories.join('\n'), problems), defaults);
    assert.deepEqual(problems, []);
    assert.ok(directories.length >= 7, 'there are directories to uncomment');
  });
});

describe('conf/webjob.conf as shipped', () => {
  const shipped = readFileSync(CLIENT_FILE, 'utf8');
  const folder = mkdtempSync(join(tmpdir(), 'webjob-shipped-'));
  after(() => rmSync(folder, { recursive: true }));
  const write = (text: string): string => {
    const path = join(folder, 'webjob.conf');
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  };

  it('lacks only required settings', () => {
    assert.throws(() => readClientSettings(CLIENT_FILE), /ClientId is required/);
    assert.throws(() => readClientSettings(write(`${shipped}ClientId=client1\n`)), /URLGetURL is required/);
  });

  it('reads as the built-in defaults once those are set', () => {
    const required = 'ClientId=client1\nURLGetURL=http://127.0.0.1/webjob/nph-webjob.cgi\n';
    const read = readClientSettings(write(shipped + required));
    assert.deepEqual(read, readClientSettings(write(required)));
  });

  it('can be used with every line uncommented', () => {
    // The pass phrase must come from one place only.
    const settings = readClientSettings(write(uncommented(CLIENT_FILE).replace(/^SSLPassPhraseFile=/m, '#$&')));
    assert.equal(settings.clientId, 'client1');
    assert.equal(settings.put?.url.href, settings.get.url.href);
  });
});

describe('docs/guide/client.md', () => {
  const folder = mkdtempSync(join(tmpdir(), 'webjob-guide-'));
  after(() => rmSync(folder, { recursive: true }));
  const guide = readFileSync(join(project, 'docs', 'guide', 'client.md'), 'utf8');
  const blocks = [...guide.matchAll(/^```ini (\S+\.conf)\n(.*?)^```$/gms)];
  for (const [, name = '', text = ''] of blocks) writeFileSync(join(folder, name), text, { mode: 0o600 });

  it('shows configurations that can be used', () => {
    assert.ok(blocks.length >= 10);
    for (const [, name = ''] of blocks) assert.equal(readClientSettings(join(folder, name)).clientId, 'client1', name);
  });

  it('checks the server in each of its recipes for TLS', () => {
    for (const name of [
      'webjob.conf',
      'public.conf',
      'own-ca.conf',
      'original.conf',
      'certificate.conf',
      'proxy.conf',
    ]) {
      const { sslVerifyHost, sslVerifyPeerCert } = readClientSettings(join(folder, name));
      assert.ok(sslVerifyHost || sslVerifyPeerCert, name);
    }
  });
});

/** The text of one section of docs/protocol.md. */
function readSection(number: number): string {
  const text = readFileSync(join(project, 'docs', 'protocol.md'), 'utf8');
  const section = text.split(/^(?=## )/m).find((candidate) => candidate.startsWith(`## ${number}. `));
  assert.ok(section, `docs/protocol.md has a section ${number}`);
  return section;
}

/** The cells of the rows of a section's table, without backticks and without its head. */
function readTable(number: number): string[][] {
  const rows = readSection(number)
    .split('\n')
    .filter((line) => line.startsWith('| '));
  return rows.slice(1).map((row) =>
    row
      .slice(2, -2)
      .split(' | ')
      .map((cell) => cell.replaceAll('`', '')),
  );
}

/** Settings by key, with the default if the table gives one; undefined if it gives prose. */
function readDocumentedControls(number: number): Map<string, string | undefined> {
  const documented = new Map<string, string | undefined>();
  let before = '';
  for (const [keys = '', , cell = ''] of readTable(number)) {
    const text = cell === 'the same' ? before : cell.replace(/ \(.*\)$/, '').replace(/ below BaseDirectory$/, '');
    before = text;
    const words = text.split(', ');
    const isList = words.every((word) => /^\S*$/.test(word));
    // Pairs of one kind share one pair of defaults: `N, none`.
    for (const [index, key] of keys.split(', ').entries()) {
      assert.ok(!documented.has(key), `${key} is documented twice`);
      documented.set(key, isList ? words[index % words.length] : undefined);
    }
  }
  return documented;
}

function checkDocumentedDefaults(controls: readonly Control[], documented: Map<string, string | undefined>): number {
  let compared = 0;
  for (const control of controls) {
    assert.ok(documented.has(control.key), `${control.key} is not in the table`);
    const words = documented.get(control.key);
    if (words === undefined) continue;
    const expected = words === 'required' || (words === 'none' && control.default === '') ? '' : words;
    assert.equal(control.default.replace(/^<Base>\//, ''), expected, control.key);
    compared++;
  }
  return compared;
}

describe('docs/protocol.md', () => {
  it('lists every status with its reason, and no other', () => {
    const rows = readTable(3).map(([code, reason]) => [code, reason]);
    assert.deepEqual(Object.fromEntries(rows), { ...REASONS });
    assert.equal(rows.length, Object.keys(REASONS).length, 'no code twice');
  });

  it('lists every setting of the server with its default', () => {
    const documented = readDocumentedControls(4);
    const compared = checkDocumentedDefaults(SERVER_CONTROLS, documented);
    assert.ok(compared >= 15, `${compared} defaults compared`);
    const known: readonly string[] = SERVER_CONTROLS.map(({ key }) => key);
    const unknown = [...documented.keys()].filter((key) => !known.includes(key));
    assert.deepEqual(unknown, []);
  });

  it('lists every setting of the client with its default, and no other', () => {
    const documented = readDocumentedControls(7);
    const compared = checkDocumentedDefaults(CLIENT_CONTROLS, documented);
    assert.ok(compared >= 10, `${compared} defaults compared`);
    // Import is not a setting: it may be repeated, and what it names has lines of its own.
    const known = [...CLIENT_CONTROLS.map(({ key }) => key), 'Import'];
    assert.deepEqual([...documented.keys()].sort(), known.sort());
  });

  it('lists every token, and no other', () => {
    const paragraph = /^Tokens in PutNameFormat.*?\n\n/ms.exec(readSection(4))?.[0] ?? '';
    const ticked = [...paragraph.matchAll(/`([^`]+)`/g)].flatMap(([, code = '']) => code.split(/\s+/));
    const tokens = ticked.filter((word) => /^%(?:%|[A-Za-z0-9]+)$/.test(word)).map((word) => word.slice(1));
    const names = tokens.filter((token) => token !== 'hh');
    assert.deepEqual(names.sort(), [...TOKENS, ...PATH_TOKENS].sort());
  });
});
