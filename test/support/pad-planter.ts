// A process that plants objects under one name until it is ended: pad-planter.ts <path> <victim
// file> <victim folder>
import { mkdirSync, renameSync, rmdirSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';

const [path = '', file = '', folder = ''] = process.argv.slice(2);
const next = `${path}.next`;

const PLANTS: (() => void)[] = [
  () => symlinkSync(file, next),
  () => symlinkSync(folder, next),
  () => symlinkSync(`${folder}/made`, next),
  () => writeFileSync(next, 'planted', { mode: 0o666 }),
  () => mkdirSync(next),
];

function attempt(action: () => void): void {
  try {
    action();
  } catch {
    // It cannot remove another user's files.
  }
}

function clear(place: string): void {
  attempt(() => unlinkSync(place));
  attempt(() => rmdirSync(place));
}

function plantAt(place: string): void {
  for (const plant of PLANTS) {
    clear(next);
    attempt(plant);
    // A directory cannot replace a file, nor a file a directory.
    attempt(() => renameSync(next, place));
    if (plant === PLANTS.at(-1)) clear(place);
  }
}

/** Many times during one delivery, for which the processor is needed. */
const PAUSE_MS = 0.5;
const nobody = new Int32Array(new SharedArrayBuffer(4));

process.stdout.write('planting\n');
for (;;) {
  plantAt(path);
  // It pauses for as long, so that either may come first.
  plantAt(`${path}.other`);
  Atomics.wait(nobody, 0, 0, PAUSE_MS);
}
