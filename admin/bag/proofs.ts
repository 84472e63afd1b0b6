// The proofs that the entries in a package were in the custody record: inclusion proofs,
// checkpoints, time stamps, and the public keys to check all of them.
import type { KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Failure } from '../../cli/failure.ts';
import { errorCode } from '../../cli/files.ts';
import { checkCheckpoint, readCheckingKey } from '../../evidence/checkpoint.ts';
import { type Cosigners, readCosigners, whenCosigned } from '../../evidence/cosigners.ts';
import type { Entry } from '../../evidence/entries.ts';
import type { Finding } from '../../evidence/finding.ts';
import { TlogError } from '../../evidence/tlog.ts';
import { verifierOf } from '../../notes/ed25519.ts';
import { NoteError, verifyNote } from '../../notes/note.ts';
import type { TrustedKey } from '../../notes/trust.ts';
import { readTrustedKeys } from '../../sign/manifests.ts';
import { type KeptCheckpoint, readCheckpoints } from '../site/logs.ts';
import { type EntryProved, proveEntries } from '../site/proofs.ts';
import type { Site } from '../site/site.ts';
import { checkStamp, type KeptStamp, readStamps } from '../site/stamps.ts';
import type { PlacedEntry } from './entries.ts';
import { addKey, POLICY } from './keys.ts';
import type { FoundManifest } from './program.ts';
import type { BagWriter } from './writer.ts';

/** The keys given by the operator; the package includes those that signed something in it. */
export interface Keys {
  /** Keys that sign checkpoints. */
  checkpoints: readonly KeyObject[];
  /** Keys that sign manifests. */
  manifests: readonly TrustedKey[];
  /** The policy for cosignatures on checkpoints. */
  cosigners: Cosigners | undefined;
  /** The path and the content of the certificate of the time stamps' CA. */
  ca: { path: string; pem: string } | undefined;
}

/** Reads the keys. Throws Failure `failed` and `usage`. */
export function readKeys({
  key = [],
  trusted,
  witnesses,
  ca,
}: {
  key?: string[];
  trusted?: string;
  witnesses?: string;
  ca?: string;
}): Keys {
  return {
    cosigners: witnesses === undefined ? undefined : readCosigners(witnesses),
    checkpoints: key.map(readCheckingKey),
    manifests: trusted === undefined ? [] : readTrustedKeys(trusted),
    ca: ca === undefined ? undefined : { path: ca, pem: readPem(ca) },
  };
}

function readPem(path: string): string {
  let text: string;
  try {
    text = readFileSync(path, 'latin1');
  } catch (error) {
    throw new Failure('failed', `${path} cannot be read: ${errorCode(error)}`);
  }
  if (/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text))
    throw new Failure('usage', `${path} contains a private key, which must not be handed over`);
  if (!/-----BEGIN (?:TRUSTED )?CERTIFICATE-----/.test(text))
    throw new Failure('failed', `${path} contains no certificate in PEM`);
  return text;
}

/** The signatures in a package. */
export interface Proofs {
  /** The proofs by the entries that they prove. */
  proved: Map<Entry, EntryProved>;
  findings: Finding[];
  notes: string[];
}

/**
 * Proves each entry by the smallest checkpoint that covers it and has a time stamp, or otherwise by
 * the newest one. Adds these checkpoints and the newest one, with their time stamps and keys.
 * Throws Failure `failed`.
 */
export function addProofs(bag: BagWriter, site: Site, entries: readonly PlacedEntry[], keys: Keys): Proofs {
  const proofs: Proofs = { proved: new Map(), findings: [], notes: [] };
  let isStamped = false;
  for (const [serverId, own] of byRecord(entries)) {
    const { stamps, newest } = proveRecord(site, serverId, own, keys, proofs);
    for (const stamp of stamps) addStamp(bag, serverId, stamp, keys, proofs);
    isStamped ||= stamps.length > 0;
    if (newest) bag.addText(`data/checkpoints/${serverId}.newest.checkpoint`, newest.text);
    for (const checkpoint of new Map(
      [...stamps.map((stamp) => stamp.checkpoint), ...(newest ? [newest] : [])].map((one) => [one.text, one]),
    ).values())
      addCheckpointKey(bag, checkpoint, keys, proofs);
  }
  if (keys.ca && isStamped) bag.addText('data/keys/tsa-ca.pem', keys.ca.pem);
  if (keys.cosigners && bag.paths().some((path) => path.startsWith('data/checkpoints/')))
    addPolicy(bag, keys.cosigners);
  return proofs;
}

/**
 * Proves entries of one record. Returns the time stamps of the checkpoints that are used, and the
 * newest checkpoint.
 */
function proveRecord(
  site: Site,
  serverId: string,
  entries: readonly PlacedEntry[],
  { cosigners }: Keys,
  { proved, findings, notes }: Proofs,
): { stamps: KeptStamp[]; newest: KeptCheckpoint | undefined } {
  const settings = { ...site.settings, logfilesDirectory: entries[0]?.logs ?? site.settings.logfilesDirectory };
  const isEnough = (checkpoint: KeptCheckpoint): boolean =>
    !cosigners || whenCosigned(checkpoint.text, cosigners) !== undefined;
  const kept = readCheckpoints(settings, serverId);
  const newest = kept.findLast(isEnough);
  const all = readStamps(settings, serverId);
  const stamps = all.filter(({ checkpoint }) => isEnough(checkpoint));
  if (kept.length > 0 && !newest)
    notes.push(`${serverId}: too few witnesses have cosigned any checkpoint of its record`);
  for (const { name } of all.filter((stamp) => !stamps.includes(stamp)))
    notes.push(`${serverId}: the time stamp ${name} is left out: too few witnesses have cosigned its checkpoint`);
  const checkpoints = [...stamps.map(({ checkpoint }) => checkpoint), ...(newest ? [newest] : [])];
  const used = new Set<string>();
  try {
    for (const proof of proveEntries(settings, serverId, entries, checkpoints)) {
      proved.set(proof.entry, proof);
      used.add(proof.checkpoint.text);
    }
  } catch (error) {
    if (!(error instanceof Failure) || error.kind !== 'findings') throw error;
    findings.push({ kind: 'checkpoint-changed', place: serverId, detail: error.message });
  }
  return { stamps: stamps.filter(({ checkpoint }) => used.has(checkpoint.text)), newest };
}

/** Adds the policy by which checkpoints were chosen, with its keys. */
function addPolicy(bag: BagWriter, { text, witnesses }: Cosigners): void {
  bag.addText(POLICY, text);
  for (const { id, publicKey } of witnesses) addKey(bag, 'witnesses', id, publicKey);
}

/**
 * The entries of each record, by server. Of two log directories with a record of the same name, the
 * first is used.
 */
function byRecord(entries: readonly PlacedEntry[]): Map<string, PlacedEntry[]> {
  const records = new Map<string, PlacedEntry[]>();
  for (const entry of entries) {
    const own = records.get(entry.file.serverId) ?? [];
    records.set(entry.file.serverId, own);
    if (own.length === 0 || own[0]?.logs === entry.logs) own.push(entry);
  }
  return records;
}

function addStamp(
  bag: BagWriter,
  serverId: string,
  { name, checkpoint, answer }: KeptStamp,
  { ca }: Keys,
  { findings, notes }: Proofs,
): void {
  const path = `data/checkpoints/${serverId}.${name}`;
  bag.addText(`${path}.checkpoint`, checkpoint.text);
  bag.addText(`${path}.tsr`, answer);
  if (!ca) {
    notes.push(`${path}.tsr: not checked, as no certificate of its authority was given (--ca)`);
    return;
  }
  try {
    checkStamp(answer, checkpoint.text, { ca: ca.path });
  } catch (error) {
    if (!(error instanceof Failure) || error.kind !== 'findings') throw error;
    findings.push({ kind: 'checkpoint-invalid', place: `${path}.tsr`, detail: error.message });
  }
}

function addCheckpointKey(
  bag: BagWriter,
  checkpoint: KeptCheckpoint,
  { checkpoints: keys }: Keys,
  { findings, notes }: Proofs,
): void {
  const { origin, size, text } = checkpoint;
  const place = `the checkpoint of ${origin} with ${size} entries`;
  if (keys.length === 0) {
    notes.push(`${place}: its signature is not checked, as no public key was given (--key)`);
    return;
  }
  const signer = keys.find((key) => isSigned(text, key));
  if (signer) addKey(bag, 'checkpoints', verifierOf(origin, signer).id, signer);
  else findings.push({ kind: 'checkpoint-invalid', place, detail: 'none of the given keys has signed it' });
}

function isSigned(text: string, key: KeyObject): boolean {
  try {
    checkCheckpoint(text, { key });
    return true;
  } catch (error) {
    if (error instanceof NoteError || error instanceof TlogError) return false;
    throw error;
  }
}

/**
 * Adds the keys that signed a manifest. Returns why it is not valid or cannot be checked; undefined
 * when it is valid.
 */
export function addManifestKeys(
  bag: BagWriter,
  { note }: FoundManifest,
  { manifests }: Keys,
): { isWrong: boolean; why: string } | undefined {
  if (manifests.length === 0)
    return { isWrong: false, why: 'its signatures are not checked, as no trusted keys were given (--trusted)' };
  try {
    for (const { id, publicKey } of verifyNote(note, manifests)) addKey(bag, 'manifests', id, publicKey);
    return undefined;
  } catch (error) {
    if (!(error instanceof NoteError)) throw error;
    return { isWrong: true, why: error.message };
  }
}
