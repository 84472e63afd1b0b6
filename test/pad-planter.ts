// A process that keeps planting things under one name until it is ended: pad-planter.ts <path> <victim file> <victim folder>
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
    // What is not his, he cannot take away.
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
    // A folder takes no file's place, nor a file a folder's.
    attempt(() => renameSync(next, place));
    if (plant === PLANTS.at(-1)) clear(place);
  }
}

/** Many times within one delivery, and the processor is for that. */
const PAUSE_MS = 0.5;
const nobody = new Int32Array(new SharedArrayBuffer(4));

process.stdout.write('planting\n');
for (;;) {
  plantAt(path);
  // As long again he leaves the name alone, so that either may come first.
  plantAt(`${path}.other`);
  Atomics.wait(nobody, 0, 0, PAUSE_MS);
}
