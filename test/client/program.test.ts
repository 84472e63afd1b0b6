// The program in TempDirectory, and what another run of the same program may do to it there.
import assert from 'node:assert/strict';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { PlacedProgram } from '../../client/program.ts';

const TEXT = `#!/bin/sh\n# ${'x'.repeat(200_000)}\n`;
let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'webjob-program-'));
  path = join(folder, 'job.sh');
});
afterEach(() => rmSync(folder, { recursive: true }));

function place(overwrite: boolean): PlacedProgram {
  const fetched = join(folder, 'fetched');
  writeFileSync(fetched, TEXT, { mode: 0o600 });
  return new PlacedProgram(fetched, path, overwrite);
}

describe('a placed program', () => {
  for (const overwrite of [true, false]) {
    it(`is restored when another run removed it; OverwriteExecutable=${overwrite ? 'Y' : 'N'}`, () => {
      const placed = place(overwrite);
      for (let round = 0; round < 3; round++) {
        rmSync(path);
        assert.equal(placed.restore(), true);
        assert.equal(readFileSync(path, 'utf8'), TEXT);
        assert.equal(statSync(path).mode & 0o777, 0o700);
        assert.deepEqual(readdirSync(folder), ['job.sh']);
      }
      placed.remove();
      assert.equal(existsSync(path), false);
    });
  }

  it('is not restored where another file is by now, even a dangling link', () => {
    const placed = place(true);
    rmSync(path);
    symlinkSync(join(folder, 'nowhere'), path);
    assert.equal(placed.restore(), false);
    placed.remove();
    assert.deepEqual(readdirSync(folder), ['job.sh']);
    rmSync(path);
    writeFileSync(path, 'of another run');
    assert.equal(placed.restore(), false);
    placed.remove();
    assert.equal(readFileSync(path, 'utf8'), 'of another run');
  });

  it('is not restored where nothing can be written, without an error', () => {
    const placed = place(true);
    rmSync(path);
    writeFileSync(join(folder, 'fetched'), 'in the way');
    assert.equal(placed.restore(), false);
    assert.equal(existsSync(path), false);
  });
});
