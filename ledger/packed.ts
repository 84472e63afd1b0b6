// The uploads that are in packs, as their manifests tell of them.
import { closeSync, openSync, readSync } from 'node:fs';
import { encodeField } from 'webjob-protocol';
import { type PackedGroup, parsePackedGroup } from '../archive/manifest.ts';
import type { Pack } from '../archive/packs.ts';
import { Failure } from '../cli/failure.ts';
import { warn } from '../cli/output.ts';
import { describeEnding, type Ending } from './ending.ts';
import { makeCutter } from './lines.ts';
import type { ParseName } from './names.ts';
import { packFiles, type ReadUpload, unpackFiles } from './read-upload.ts';
import { packedStreams, readPackedRecord } from './streams.ts';

const BLOCK_BYTES = 256 * 1024;
const MAX_LINE_BYTES = 1 << 20;
const COMPLETE = unpackFiles(packFiles(new Set(['out', 'err', 'env', 'rdy'])));

/** Hands on every upload of a pack. False for a manifest that is damaged, which is read as far as it goes, or gone. */
export async function readPack(pack: Pack, parseName: ParseName, put: (upload: ReadUpload) => void): Promise<boolean> {
  let damage = '';
  const onDamage = (error: Error): void => {
    damage ||= error.message;
  };
  try {
    for (const group of readGroups(pack, onDamage)) put(await describeGroup(pack, group, parseName));
    if (damage !== '') warn(`${pack.manifest} is damaged, and the uploads of damaged lines are unknown: ${damage}`);
    return damage === '';
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    // Unpacked or pruned at this moment.
    if (code !== 'ENOENT') warn(`${pack.manifest} is skipped: ${code ?? message}`);
    return false;
  }
}

function* readGroups({ manifest }: Pack, onDamage: (error: Error) => void): Generator<PackedGroup> {
  const fd = openSync(manifest, 'r');
  try {
    const cutter = makeCutter((text, offset) => {
      try {
        return offset === 0 ? undefined : parsePackedGroup(text);
      } catch (error) {
        onDamage(error as Error);
        return undefined;
      }
    }, MAX_LINE_BYTES);
    const buffer = Buffer.allocUnsafe(BLOCK_BYTES);
    for (let count = 1; count > 0; ) {
      count = readSync(fd, buffer, 0, buffer.length, null);
      yield* cutter.cut(buffer.subarray(0, count));
    }
  } finally {
    closeSync(fd);
  }
}

/** Whose it is: by the manifest, or when the log told nothing of it, by its name. */
async function describeGroup(pack: Pack, group: PackedGroup, parseName: ParseName): Promise<ReadUpload> {
  const jobId = encodeField(group.jobId);
  const { clientId, command } = group.clientId === undefined ? (parseName(group.name, jobId) ?? {}) : group;
  return {
    ...{ name: group.name, place: pack.name, has: COMPLETE, at: Date.parse(group.at), stamp: '' },
    ...{ jobId, clientId, command },
    isNamed: clientId !== undefined && command !== undefined,
    bytes: 0,
    ending: group.ending ?? (await readPackedEnding(pack, group)),
  };
}

/** Packs of earlier versions do not tell it. A run record that cannot be read tells of no good ending. */
async function readPackedEnding(pack: Pack, group: PackedGroup): Promise<Ending> {
  try {
    return describeEnding(await readPackedRecord(packedStreams(pack, group)));
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    warn(error.message);
    return { isGood: false, exitCode: undefined, signal: undefined, clockSkew: undefined };
  }
}
