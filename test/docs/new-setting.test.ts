// Every place that a setting of nph-webjob.cfg or webjob.conf must be in, in one list: after a
// change of a table, this test says within a second what else to write. The tests named in
// CONTRIBUTING.md check the contents.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { CONTROLS as SERVER_SETTINGS, SITE_CONTROLS } from '../../cgi/setting-table.ts';
import { CONTROLS as CLIENT_SETTINGS } from '../../client/setting-table.ts';

const root = join(import.meta.dirname, '..', '..');

interface Place {
  file: string;
  /** What to write there. */
  write: (key: string, value: string) => string;
  isThere: (text: string, key: string) => boolean;
}

const hasWord = (text: string, key: string): boolean => new RegExp(`\\b${key}\\b`).test(text);
const hasKey = (text: string, key: string): boolean => new RegExp(`^ +(?:${key}:|\\['${key}')`, 'm').test(text);

const shipped = (file: string): Place => ({
  file,
  write: (key, value) =>
    value === '' || value.startsWith('<Base>')
      ? `a line that explains it, and below it "#${key}=" with an example`
      : `a line that explains it, and below it "${key}=${value}"`,
  isThere: (text, key) => new RegExp(`^#?${key}=`, 'm').test(text),
});
const manual = (file: string): Place => ({
  file,
  write: (key) => `an entry ".It Ic ${key}" in SETTINGS, in the group and order of the shipped file`,
  isThere: (text, key) => new RegExp(`^\\.It Ic ${key}\\b`, 'm').test(text),
});
const row = (file: string, where: string): Place => ({
  file,
  write: (key) => `\`${key}\` in ${where}`,
  isThere: hasWord,
});

const SERVER_PLACES: Place[] = [
  shipped('conf/nph-webjob.cfg'),
  manual('docs/man/nph-webjob.cfg.5'),
  row('docs/protocol.md', 'the table of section 4'),
  row('docs/guide/migration.md', 'the table of settings, which says whether the Perl script has it'),
];
const CLIENT_PLACES: Place[] = [
  shipped('conf/webjob.conf'),
  manual('docs/man/webjob.conf.5'),
  row('docs/protocol.md', 'the table of section 7'),
];

/** The proof that an override may, or may not, change a setting. */
function overridePlace(key: string): Place {
  const table = SITE_CONTROLS.some((setting) => setting.key === key) ? 'LOCKED' : 'OPEN';
  return {
    file: 'test/server/overrides.test.ts',
    write: () => `a row in ${table} with a value that changes what a request does`,
    isThere: hasKey,
  };
}

/** Flags and directories have samples of their kind. */
function samplePlace({ key, allowed }: { key: string; allowed: string }): Place[] {
  if (allowed === '[YNyn]' || key.endsWith('Directory')) return [];
  return [
    {
      file: 'test/server/settings.test.ts',
      write: () => 'a row in SAMPLES: values that are allowed, and values that are not',
      isThere: hasWord,
    },
  ];
}

const read = (file: string): string => readFileSync(join(root, file), 'utf8');

function findMissing(key: string, value: string, places: readonly Place[]): string[] {
  return places
    .filter(({ file, isThere }) => !isThere(read(file), key))
    .map(({ file, write }) => `  ${file}: add ${write(key, value)}`);
}

const report = (key: string, missing: readonly string[]): string =>
  `${key} is in the table but not everywhere else:\n${missing.join('\n')}\n`;

describe('every setting of the server', () => {
  for (const setting of SERVER_SETTINGS)
    it(`is in every required place: ${setting.key}`, () => {
      const places = [...SERVER_PLACES, ...samplePlace(setting), overridePlace(setting.key)];
      const missing = findMissing(setting.key, setting.default, places);
      assert.equal(missing.length, 0, report(setting.key, missing));
    });
});

describe('every setting of the client', () => {
  for (const setting of CLIENT_SETTINGS)
    it(`is in every required place: ${setting.key}`, () => {
      const missing = findMissing(setting.key, setting.default, CLIENT_PLACES);
      assert.equal(missing.length, 0, report(setting.key, missing));
    });
});

describe('a setting that is missing everywhere', () => {
  it('is reported with every place and what to write there', () => {
    const missing = findMissing('NoSuchSetting', 'N', [...SERVER_PLACES, overridePlace('NoSuchSetting')]);
    assert.deepEqual(
      missing.map((line) => line.trim().split(':')[0]),
      [
        'conf/nph-webjob.cfg',
        'docs/man/nph-webjob.cfg.5',
        'docs/protocol.md',
        'docs/guide/migration.md',
        'test/server/overrides.test.ts',
      ],
    );
    assert.match(missing[0] ?? '', /NoSuchSetting=N/);
  });
});
