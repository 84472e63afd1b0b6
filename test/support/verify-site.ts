// A locker with its custody record, made by the server's own code, for tests of their readers.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { formatRecord, type RecordField } from 'webjob-protocol';
import { appendCustody, custodyPath, type StreamName, storeUpload } from '../../cgi/locker/index.ts';

export const EXTENSIONS_KEPT = ['out', 'err', 'env', 'rdy'] as const;

export interface Planted {
  incomingDirectory: string;
  logfilesDirectory: string;
  name: string;
  out: string | Buffer;
  err: string | Buffer;
  jobId?: string;
  hashType?: string;
  /** Changes to the run record. */
  fields?: Partial<Record<RecordField, string>>;
  /** Changes to the custody record; false for none. */
  custody?: Record<string, unknown> | false;
  serverId?: string;
  segmentLimit?: number | undefined;
  /** The text that replaces the run record. */
  changeEnv?: (env: string) => string;
  overwrite?: boolean;
}

/** Deposits an upload as the server does, with its custody record. */
export function plantGroup(planted: Planted): void {
  const { incomingDirectory, logfilesDirectory, name, hashType = 'MD5' } = planted;
  const jobId = planted.jobId ?? `server_1_1085355126_${name}`;
  const [out, err] = [Buffer.from(planted.out), Buffer.from(planted.err)];
  const { changeEnv = (text: string) => text } = planted;
  const env = Buffer.from(changeEnv(makeEnv(jobId, out, err, hashType, planted.fields ?? {}).toString()));
  const streams: Record<StreamName, Buffer> = { out, err, env };
  const body = Buffer.concat([out, err, env]);
  let at = 0;
  const lengths = { out: out.length, err: err.length, env: env.length };
  const source = {
    read: (buffer: Uint8Array) => {
      const count = body.copy(buffer, 0, at);
      at += count;
      return count;
    },
  };
  storeUpload(
    { base: join(incomingDirectory, name), jobId, lengths, overwrite: planted.overwrite ?? false },
    source,
    () => {
      if (planted.custody === false) return;
      const sha256 = Object.fromEntries(
        Object.entries(streams).map(([stream, bytes]) => [stream, digest('sha256', bytes)]),
      );
      const own = { name, serverId: planted.serverId ?? 'server_1', jobId, clientId: 'client1' };
      const facts = { time: new Date(), event: 'deposit', ...own, bytes: lengths, sha256 };
      appendCustody(
        custodyPath(logfilesDirectory, planted.serverId ?? 'server_1'),
        { ...facts, ...planted.custody },
        { mayCreate: true, segmentLimit: planted.segmentLimit },
      );
    },
  );
}

function makeEnv(jobId: string, out: Buffer, err: Buffer, hashType: string, fields: Planted['fields']): Buffer {
  const [StdOutHash, StdErrHash] = [out, err].map((bytes) => digest(hashType.toLowerCase(), bytes)) as [string, string];
  const [Pid, KidPid] = ['1', '2'];
  const all: Record<RecordField, string> = {
    Version: 'webjob 1.4.0',
    Hostname: 'host',
    SystemOS: 'any',
    ClientId: 'client1',
    GetRequest: 'host.sh',
    Command: 'host.sh',
    CommandLine: 'host.sh',
    Jid: jobId,
    Pid,
    KidPid,
    KidStatus: '0',
    KidSignal: '0',
    KidReason: 'The kid exited cleanly.',
    JobEpoch: 'NA',
    GetEpoch: 'NA',
    RunEpoch: 'NA',
    PutEpoch: 'NA',
    HashType: hashType,
    StdOutHash,
    StdErrHash,
    GetError: 'NA',
    RunError: 'NA',
    ...fields,
  };
  return Buffer.from(formatRecord({ fields: all, extra: [] }));
}

function digest(algorithm: string, bytes: Uint8Array): string {
  return createHash(algorithm).update(bytes).digest('hex');
}
