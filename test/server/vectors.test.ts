// The raw vectors against the script as CGI: bytes in, bytes out, and the contents of the log and
// the locker afterwards.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { isCut, TARGETS, type Target } from '../support/target.ts';
import { runVector } from '../support/vector-run.ts';
import { readVectors, type Vector } from '../support/vectors.ts';

const vectors = readVectors();

describe('raw vectors', () => {
  it('number at least 60 and cover every status of this server', () => {
    assert.ok(vectors.length >= 60, `${vectors.length} vectors`);
    const seen = new Set(vectors.map((vector) => /^HTTP\/1\.1 (\d{3})/.exec(vector.response)?.[1]));
    for (const status of [
      200, 251, 404, 405, 450, 451, 452, 453, 454, 455, 456, 457, 458, 459, 470, 471, 472, 500, 507, 550, 551, 553,
    ]) {
      assert.ok(seen.has(String(status)), `no vector answers ${status}`);
    }
  });
});

/** When httpd passes on the script's answer, the bare script would be tested twice. */
const isBareOnly = ({ httpdAnswers, bareEnvironment, only }: Vector): boolean =>
  only ? only.kind === 'bare' : httpdAnswers !== undefined || bareEnvironment.length > 0;

const isForHttpd = ({ only }: Vector): boolean => only?.kind !== 'bare';

/** The capacity of a pipe (pipe(7)): more is written and read in turns. */
const PIPE_BYTES = 65_536;

/**
 * mod_cgi gives a script the same variables as mod_cgid, but pipes instead of one socket. So under
 * prefork only some vectors run: those that break off, those whose script starts processes that
 * inherit the pipes, those that httpd answers itself, and one of every method, class of status and
 * kind of body; strict.test.ts tries every status there. Every vector runs under event, and twice
 * more in vectors-resident.test.ts.
 */
function pickForPipes(): (vector: Vector) => boolean {
  const seen = new Set<string>();
  return (vector) => {
    if (!isForHttpd(vector)) return false;
    const text = vector.request.toString('latin1');
    const length = text.length - text.indexOf('\r\n\r\n') - 4;
    const body = length > PIPE_BYTES ? 'large' : length > 0 ? 'small' : 'none';
    const kind = `${/^\S*/.exec(text)} ${vector.response.slice(0, 'HTTP/1.1 2'.length)} ${body}`;
    const isNew = !seen.has(kind);
    seen.add(kind);
    const startsProcesses = vector.settings.some((line) => line.includes('HookEnable='));
    return isNew || startsProcesses || isCut(vector.request) || vector.httpdAnswers !== undefined;
  };
}

const RUNS: Record<keyof typeof TARGETS, (vector: Vector) => boolean> = {
  'bare process': isBareOnly,
  'prefork and mod_cgi': pickForPipes(),
  'event and mod_cgid': isForHttpd,
};

for (const [name, runs] of Object.entries(RUNS) as [keyof typeof TARGETS, (vector: Vector) => boolean][]) {
  describe(`raw vectors against ${name}`, () => {
    let target: Target;
    before(async () => {
      target = await TARGETS[name]();
    });
    after(() => target?.close());
    for (const vector of vectors.filter(runs)) {
      it(`${vector.place} ${vector.name}`, () => runVector(target, vector));
    }
  });
}
