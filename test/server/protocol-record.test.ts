// webjob-protocol: run records and their times, the ready line, and statuses; protocol.test.ts has
// the rest.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { formatReady, parseReady } from 'webjob-locker';
import {
  formatEpoch,
  formatRecord,
  formatTime,
  isSuccess,
  parseEpoch,
  parseRecord,
  REASONS,
  RECORD_FIELDS,
  type RecordField,
  type RunRecord,
  timeFields,
} from 'webjob-protocol';
import { hostileText, jobId } from '../support/arbitraries.ts';

/** A run record with every field set to what `value` returns. */
function recordOf(value: (name: RecordField) => string, extra: [string, string][] = []): RunRecord {
  const fields = Object.fromEntries(RECORD_FIELDS.map((name) => [name, value(name)]));
  return { fields: fields as Record<RecordField, string>, extra };
}

const escapeControls = (text: string): string =>
  text.replace(/[\0-\x1f\x7f]/g, (c) => `%${Buffer.from(c).toString('hex')}`);

describe('the run record', () => {
  it('has 22 fields in the order of the article', () => {
    assert.equal(
      RECORD_FIELDS.join(' '),
      'Version Hostname SystemOS ClientId GetRequest Command CommandLine Jid Pid KidPid KidStatus KidSignal KidReason ' +
        'JobEpoch GetEpoch RunEpoch PutEpoch HashType StdOutHash StdErrHash GetError RunError',
    );
    const text = formatRecord(recordOf((name) => (name === 'KidReason' ? 'The kid exited cleanly.' : 'NA')));
    assert.match(
      text,
      /^Version=NA\nHostname=NA\n(?:\w+=NA\n){10}KidReason=The kid exited cleanly\.\n(?:\w+=NA\n){9}$/,
    );
  });

  it('survives the round trip, and no value adds a line', () => {
    const values = fc.array(hostileText, { minLength: 24, maxLength: 24 });
    fc.assert(
      fc.property(values, (texts) => {
        const [first = '', second = ''] = texts.slice(22);
        const record = recordOf(
          (name) => texts[RECORD_FIELDS.indexOf(name)] ?? '',
          [
            ['OurField', first],
            ['OtherField', second],
          ],
        );
        const text = formatRecord(record);
        assert.equal(text.split('\n').length, 25);
        assert.deepEqual(parseRecord(text), {
          fields: recordOf((name) => escapeControls(record.fields[name])).fields,
          extra: record.extra.map(([name, value]) => [name, escapeControls(value)]),
        });
      }),
    );
  });

  it('is read with Windows line ends', () => {
    const record = recordOf((name) => `${name} = value`);
    assert.deepEqual(parseRecord(formatRecord(record).replaceAll('\n', '\r\n')), record);
  });

  it('is refused when a field is missing, out of order or unterminated', () => {
    const lines = formatRecord(recordOf(() => 'NA'))
      .split('\n')
      .slice(0, -1);
    const swapped = [lines[1], lines[0], ...lines.slice(2)];
    const texts: [text: string, message: RegExp][] = [
      ['', /newline|line 1/],
      [lines.join('\n'), /newline/],
      [`${lines.slice(0, 21).join('\n')}\n`, /line 22 of the record is not RunError/],
      [`${lines.slice(1).join('\n')}\n`, /line 1 of the record is not Version/],
      [`${swapped.join('\n')}\n`, /line 1 of the record is not Version/],
      [`${[...lines.slice(0, 5), 'Ours=1', ...lines.slice(5)].join('\n')}\n`, /line 6 of the record is not Command/],
      [`${lines.join('\n')}\nstray\n`, /line 23 of the record is not Key=value/],
      [`${lines.join('\n')}\n\n`, /line 23 of the record is not Key=value/],
      [`${lines.join('\n')}\n=x\n`, /line 23 of the record is not Key=value/],
    ];
    for (const [text, message] of texts) assert.throws(() => parseRecord(text), message);
  });
});

/** What an expression prints in a process with another time zone. */
function evaluateIn(zone: string, expression: string): string {
  const program = `import * as protocol from 'webjob-protocol'; process.stdout.write(${expression});`;
  return execFileSync(process.execPath, ['--input-type=module', '--eval', program], {
    cwd: import.meta.dirname,
    env: { ...process.env, TZ: zone },
    encoding: 'utf8',
  });
}

describe('the times of a run record', () => {
  it('look like those of the article', () => {
    assert.equal(
      evaluateIn('America/Los_Angeles', "protocol.formatEpoch(1085357681245070, 'PDT')"),
      '2004-05-23 17:14:41 PDT (1085357681.245070)',
    );
    assert.equal(parseEpoch('2004-05-23 17:14:41 PDT (1085357681.245070)'), 1085357681245070);
  });

  it('survive the round trip', () => {
    const micros = fc.integer({ min: -4_102_444_800_000_000, max: 4_102_444_800_000_000 });
    fc.assert(
      fc.property(micros, fc.constantFrom('UTC', 'PDT', '+0530', '<+03>'), (instant, zone) => {
        assert.equal(parseEpoch(formatEpoch(instant, zone)), instant);
      }),
    );
  });

  it('match a struct timeval before 1970', () => {
    const cases: [micros: number, text: string][] = [
      [-99_992_968_343, '1969-12-30 20:13:27 UTC (-99993.031657)'],
      [-1, '1969-12-31 23:59:59 UTC (-1.999999)'],
      [-1_000_000, '1969-12-31 23:59:59 UTC (-1.000000)'],
      [-999_999, '1969-12-31 23:59:59 UTC (-1.000001)'],
      [0, '1970-01-01 00:00:00 UTC (0.000000)'],
      [-2_208_988_800_000_001, '1899-12-31 23:59:59 UTC (-2208988801.999999)'],
    ];
    for (const [micros, text] of cases) {
      assert.equal(evaluateIn('UTC', `protocol.formatEpoch(${micros}, 'UTC')`), text);
      assert.equal(parseEpoch(text), micros);
    }
    assert.equal(parseEpoch('1970-01-01 13:59:59 +14 (-1.000000)'), -1_000_000);
  });

  it('are refused in another format', () => {
    const good = '2004-05-23 17:14:41 PDT (1085357681.245070)';
    const bad = ['', 'NA', good.slice(0, -1), good.replace('.245070', ''), good.replace('.245070', '.24507')];
    for (const text of [...bad, good.replace('PDT ', ''), `${good}\n`, ` ${good}`, good.replace('(', '(-')]) {
      assert.throws(() => parseEpoch(text), SyntaxError, JSON.stringify(text));
    }
  });

  it('match ISO 8601 in GMT, on every day', () => {
    const date = fc.date({ min: new Date('0001-01-01'), max: new Date('9999-12-31'), noInvalidDate: true });
    fc.assert(
      fc.property(date, (instant) => {
        assert.equal(formatTime(instant, true), instant.toISOString().slice(0, 19).replace('T', ' '));
        const first = new Date(`${timeFields(instant, true).Y}-01-01T00:00:00Z`);
        const day = Math.floor((instant.getTime() - first.getTime()) / 86_400_000) + 1;
        assert.equal(timeFields(instant, true).j, String(day).padStart(3, '0'));
      }),
    );
  });

  it('match date in the local time zone', () => {
    const zone = 'Australia/Lord_Howe';
    for (const seconds of [0, 951_782_399, 1_085_355_126, 1_696_087_800]) {
      const printed = execFileSync('date', ['-d', `@${seconds}`, '+%Y-%m-%d %H:%M:%S %j'], {
        env: { TZ: zone },
        encoding: 'utf8',
      });
      const at = `new Date(${seconds * 1000})`;
      const ours = evaluateIn(zone, `protocol.formatTime(${at}, false) + ' ' + protocol.timeFields(${at}, false).j`);
      assert.equal(ours, printed.trim());
    }
  });
});

describe('the ready line', () => {
  it('is that of the article: 30 bytes', () => {
    const line = formatReady('server_1_1085355126_00723');
    assert.equal(line, 'Jid=server_1_1085355126_00723\n');
    assert.equal(Buffer.byteLength(line), 30);
  });

  it('survives the round trip with every job id', () => {
    fc.assert(fc.property(jobId, (id) => assert.equal(parseReady(formatReady(id)), id)));
  });

  it('is refused in another format', () => {
    const lines = [
      '',
      'Jid=',
      'Jid=\n',
      'Jid=a',
      'jid=a\n',
      'Jid=a b\n',
      'Jid=a\n\n',
      'Jid=a\nJid=b\n',
      ' Jid=a\n',
      'Jid=é\n',
    ];
    for (const line of [...lines, 'Jid=a\0\n', `Jid=${'x'.repeat(256)}\n`]) {
      assert.throws(() => parseReady(line), SyntaxError, JSON.stringify(line));
    }
  });
});

describe('statuses', () => {
  it('have three digits and a reason that fits a status line of a strict client', () => {
    for (const [code, reason] of Object.entries(REASONS)) {
      assert.match(code, /^[2-5]\d\d$/);
      assert.match(reason, /^[A-Za-z][A-Za-z -]{0,254}$/);
    }
    assert.equal(new Set(Object.values(REASONS)).size, Object.keys(REASONS).length, 'no reason twice');
  });

  it('mean success from 200 to 299', () => {
    const successes = Object.keys(REASONS).map(Number).filter(isSuccess);
    assert.deepEqual(successes, [200, 251]);
    assert.deepEqual([199, 200, 299, 300].map(isSuccess), [false, true, true, false]);
  });
});
