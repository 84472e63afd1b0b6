// The uploads in archives, from the manifests.
import { closeSync, openSync } from 'node:fs';
import { encodeField } from 'webjob-protocol';
import { type PackedGroup, readGroups } from '../archive/manifest.ts';
import type { Pack } from '../archive/packs.ts';
import { Failure } from '../cli/failure.ts';
import { warn } from '../cli/output.ts';
import { describeEnding, type Ending } from './ending.ts';
import type { ParseName } from './names.ts';
import { packFiles, type ReadUpload, unpackFiles } from './read-upload.ts';
import { packedStreams, readPackedRecord } from './streams.ts';

const COMPLETE = unpackFiles(packFiles(new Set(['out', 'err', 'env', 'rdy'])));

/**
 * Passes on every upload of an archive. Returns false when the manifest is damaged, in which case
 * it is read up to the damage, or when it no longer exists.
 */
export async function readPack(pack: Pack, parseName: ParseName, put: (upload: ReadUpload) => void): Promise<boolean> {
  let damage = '';
  const onDamage = (error: Error): void => {
    damage ||= error.message;
  };
  try {
    const fd = openSync(pack.manifest, 'r');
    try {
      for (const group of readGroups(fd, onDamage)) put(await describeGroup(pack, group, parseName));
    } finally {
      closeSync(fd);
    }
    if (damage !== '') warn(`${pack.manifest} is damaged, and the uploads of damaged lines are unknown: ${damage}`);
    return damage === '';
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    // The archive was unpacked or removed in the meantime.
    if (code !== 'ENOENT') warn(`${pack.manifest} is skipped: ${code ?? message}`);
    return false;
  }
}

/**
 * The client and command of an upload, from the manifest or, if it does not have them, from the
 * upload's name.
 */
async function describeGroup(pack: Pack, group: PackedGroup, parseName: ParseName): Promise<ReadUpload> {
  const jobId = encodeField(group.jobId);
  const { clientId, command } = group.clientId === undefined ? (parseName(group.name, jobId) ?? {}) : group;
  return {
    name: group.name,
    place: pack.name,
    has: COMPLETE,
    at: Date.parse(group.at),
    stamp: '',
    jobId,
    clientId,
    command,
    isNamed: clientId !== undefined && command !== undefined,
    bytes: 0,
    ending: group.ending ?? (await readPackedEnding(pack, group)),
  };
}

/**
 * Reads how a run ended from the archive itself, for archives of earlier versions, whose manifests
 * do not say. A run record that cannot be read counts as failed.
 */
async function readPackedEnding(pack: Pack, group: PackedGroup): Promise<Ending> {
  try {
    return describeEnding(await readPackedRecord(packedStreams(pack, group)));
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    warn(error.message);
    return { isGood: false, exitCode: undefined, signal: undefined, clockSkew: undefined };
  }
}
