// Signs kept runs, in place and before they are sent, whose webjob was killed before signing them.
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isSigned } from '../notes/result.ts';
import { type Captured, hashCaptured } from './captured.ts';
import { codeOf, Failure } from './failure.ts';
import { openResultSigner } from './result.ts';
import type { ClientSettings } from './settings.ts';
import { sync } from './spool.ts';
import type { Streams } from './upload.ts';

/** A job in its directory; `shown` is its name in messages. */
export interface KeptJob {
  folder: string;
  shown: string;
  streams: Streams;
  /** The name and id of the key that was chosen to sign the job. */
  resultKey: string;
}

/**
 * Returns the signed run record of a kept job. An unsigned record is signed on disk, so that every
 * try sends the same bytes. Throws Failure `put`, and `settings` for an unusable key.
 */
export function signKept(settings: ClientSettings, { folder, shown, streams, resultKey }: KeptJob): Buffer {
  const { out, err, env } = streams;
  if (isSigned(env)) return env;
  if (settings.resultKeyFile === '')
    throw new Failure('put', `${shown} is to be signed with ${resultKey}`, 'add a line ResultKeyFile=...');
  const factsOf = (stream: Captured) => ({ bytes: stream.length, sha256: hashCaptured('SHA256', stream) });
  const signer = openResultSigner(settings);
  const signed = Buffer.from(signer.sign(env.toString(), { out: factsOf(out), err: factsOf(err) }));
  try {
    const next = join(folder, 'env.new');
    writeFileSync(next, signed, { mode: 0o600 });
    sync(next);
    renameSync(next, join(folder, 'env'));
    sync(folder);
  } catch (error) {
    throw new Failure('put', `${join(shown, 'env')} cannot be written: ${codeOf(error)}`);
  }
  return signed;
}
