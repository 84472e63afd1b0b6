// The name of the local zone, compared with `date +%Z` for many times in many zones.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { after, describe, it } from 'node:test';
import fc from 'fast-check';
import { zoneAbbreviation } from '../../client/zone.ts';

const ZONES = [
  ...['UTC', 'GMT', 'Europe/Berlin', 'Europe/Dublin', 'Europe/Moscow', 'America/New_York', 'America/St_Johns'],
  ...['America/Sao_Paulo', 'America/Los_Angeles', 'Asia/Kolkata', 'Asia/Tokyo', 'Asia/Kathmandu', 'Asia/Pyongyang'],
  ...['Australia/Lord_Howe', 'Pacific/Apia', 'Pacific/Chatham', 'Africa/Lagos', 'EST5EDT', 'HST10'],
  ...[':Europe/Berlin', '/usr/share/zoneinfo/Asia/Tokyo', 'XYZ-3', 'GMT0'],
];
const SECONDS = { from: Date.UTC(1990, 0) / 1000, to: Date.UTC(2037, 11) / 1000 };
const ownZone = process.env.TZ;

after(() => {
  if (ownZone === undefined) delete process.env.TZ;
  else process.env.TZ = ownZone;
});

/** The output of date for each time: the zone, and its offset as `+hhmm`. */
function askDate(tz: string, instants: number[]): string[] {
  const input = instants.map((seconds) => `@${seconds}\n`).join('');
  const env = { ...process.env, TZ: tz };
  return execFileSync('date', ['-f', '-', '+%Z %z'], { input, env, encoding: 'utf8' }).trimEnd().split('\n');
}

function offsetOf(date: Date): string {
  const minutes = -date.getTimezoneOffset();
  const two = (value: number): string => String(Math.floor(value)).padStart(2, '0');
  return `${minutes < 0 ? '-' : '+'}${two(Math.abs(minutes) / 60)}${two(Math.abs(minutes) % 60)}`;
}

describe('zoneAbbreviation', { skip: !existsSync('/usr/share/zoneinfo/Europe/Berlin') && 'no zone files' }, () => {
  for (const tz of ZONES) {
    it(`is what date prints with TZ=${tz}`, () => {
      const instants = fc.sample(fc.integer({ min: SECONDS.from, max: SECONDS.to }), { numRuns: 300, seed: 7 });
      const printed = askDate(tz, instants);
      process.env.TZ = tz;
      let compared = 0;
      for (const [index, seconds] of instants.entries()) {
        const [name, offset] = printed[index]?.split(' ') ?? [];
        const date = new Date(seconds * 1000);
        // The machine's zone files and those inside of Node are of different editions; times for
        // which they disagree are left out.
        if (offsetOf(date) !== offset) continue;
        compared += 1;
        assert.equal(zoneAbbreviation(date), name, date.toISOString());
      }
      assert.ok(compared > 100, `only ${compared} comparable`);
    });
  }

  it("never gives one time zone's name to the time of another", () => {
    for (const tz of [
      'IST-5:30',
      // JavaScript takes these for UTC.
      'HALF0:30',
      'MORE1:30SUM',
      '<+03>-3',
      'PST8PDT,M3.2.0,M11.1.0',
      'Nowhere/Bad',
      'x',
      '../../etc/passwd',
      '/etc/passwd',
    ]) {
      const date = new Date();
      const [printed] = askDate(tz, [Math.floor(date.getTime() / 1000)]);
      process.env.TZ = tz;
      const told = zoneAbbreviation(date);
      const offset = offsetOf(date);
      assert.ok(`${told} ${offset}` === printed || `${told} ${offset}` === 'UTC +0000', `${tz}: ${told} ${offset}`);
    }
  });
});
