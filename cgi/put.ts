// receiveUpload: checks the lengths and stores the upload. The locker handles the bytes themselves.
import { drainBody } from 'node-cgi-compat';
import {
  type ByteSource,
  type Digests,
  digestStreams,
  findTooLong,
  LockerFailure,
  type LockerFailureKind,
  STREAMS,
  type Steps,
  type StoredUpload,
  storeSteps,
} from 'webjob-locker';
import { NOT_APPLICABLE, type PutQuery, type Status } from 'webjob-protocol';
import { endBatch } from './batch.ts';
import { type Content, findReceived, readContent, recordDeposit, recordReplaced } from './custody.ts';
import { type Answer, type Exchange, tokenFacts } from './exchange.ts';
import { inspectUpload } from './hooks.ts';
import { type DayShare, openDayShare } from './limits.ts';
import { Refusal } from './refusal.ts';
import { expandTokens } from './tokens.ts';

const STATUS_OF_FAILURE: Record<LockerFailureKind, Status> = {
  exists: 451,
  full: 507,
  name: 450,
  short: 456,
  failed: 500,
};

/** Failures after which nothing of an upload stays in the locker. */
const LEAVES_NOTHING = new Set<LockerFailureKind>(['exists', 'full', 'name']);

/**
 * Receives an upload. Throws Refusal 450, 451, 456, 500, 507, 550 or 551. When it returns 200, the
 * upload is on disk.
 */
export function* receiveUpload(exchange: Exchange, query: PutQuery): Steps<Answer> {
  const { request, settings } = exchange;
  const total = query.outLength + query.errLength + query.envLength;
  if (!Number.isSafeInteger(total) || total !== request.contentLength) {
    throw new Refusal(456, 'Content-Length is not the sum of the three lengths');
  }
  if (query.runType === 'linktest') {
    if (drainBody(exchange.body) !== total) throw new Refusal(456, 'the body ended early');
    return { status: 251 };
  }
  const name = uploadName(exchange);
  checkName(exchange, name);
  yield { kind: 'turn', keys: conflictsOf(exchange, name, query.clientId), blocks: settings.putHookEnable };
  const lengths = { out: query.outLength, err: query.errLength, env: query.envLength };
  const { enableCustody, enableRequestTracking } = settings;
  const share = openDayShare(exchange, query.clientId, total);
  const body = share?.body ?? exchange.body;
  const digested = enableCustody || enableRequestTracking ? digestStreams(body, lengths) : undefined;
  const { stored, sha256 } = yield* store(exchange, name, lengths, digested ?? body, {
    take: digested?.digests,
    share,
  });
  if (query.fileName === settings.batchCommand) endBatch(exchange, query.clientId);
  const answer: Answer = { status: 200, upload: stored.paths, digests: sha256 };
  // The client retries because it received no answer. Its upload is safe, and the log explains why
  // there is no second one.
  return stored.isRepeat ? { ...answer, isRepeat: true, detail: 'the same upload was stored before' } : answer;
}

/**
 * The keys that concurrent uploads must not share, so that each is answered as if it were the only
 * one: the name, and with daily limits the client's share of them.
 */
function conflictsOf({ settings }: Exchange, name: string, clientId: string): string[] {
  const { incomingDirectory, maxBytesPerDay, maxUploadsPerDay, limitsDirectory } = settings;
  const path = `name ${incomingDirectory}/${name}`;
  return maxBytesPerDay > 0 || maxUploadsPerDay > 0 ? [path, `day ${limitsDirectory}/${clientId}`] : [path];
}

function* store(
  exchange: Exchange,
  name: string,
  lengths: Content['bytes'],
  source: ByteSource,
  { take, share }: { take: (() => Digests) | undefined; share: DayShare | undefined },
): Steps<{ stored: StoredUpload; sha256: Digests | undefined }> {
  const { incomingDirectory, overwriteExistingFiles, keepDifferingUploads, enableCustody, putHookEnable } =
    exchange.settings;
  const base = `${incomingDirectory}/${name}`;
  const jobId = exchange.jobId ?? NOT_APPLICABLE;
  const nameOf = (path: string): string => name + path.slice(base.length);
  let sha256: Digests | undefined;
  const digest = (): Digests | undefined => {
    sha256 ??= take?.();
    return sha256;
  };
  const findChanged = (bases: readonly string[]) => {
    const received = findReceived(exchange, bases.map(nameOf));
    const isSame = (path: string): boolean => isEqual(received.get(nameOf(path)), { bytes: lengths, sha256: digest() });
    return received.size > 0 ? () => bases.find(isSame) : undefined;
  };
  try {
    const stored = yield* storeSteps(
      {
        base,
        lengths,
        jobId,
        overwrite: overwriteExistingFiles,
        keepDiffering: keepDifferingUploads,
        findChanged: putHookEnable && enableCustody ? findChanged : undefined,
        beforeStoring: share?.reserve,
      },
      source,
      function* (paths, differsFrom) {
        const sha256 = digest();
        if (putHookEnable) inspectUpload(exchange, paths);
        if (!sha256 || !enableCustody) return;
        const sent = { bytes: lengths, sha256 };
        // A hook may have changed the files.
        const content = putHookEnable ? readContent(paths) : sent;
        const received = isEqual(content, sent) ? undefined : sent;
        const stored = nameOf(paths.out.slice(0, -'.out'.length));
        yield* recordDeposit(exchange, stored, content, { differsFrom: differsFrom && nameOf(differsFrom), received });
      },
      function* (paths) {
        if (enableCustody) yield* recordReplaced(exchange, name, paths);
      },
    );
    share?.settle(stored.isRepeat ? 'nothing' : 'stored');
    return { stored, sha256 };
  } catch (error) {
    share?.settle(error instanceof LockerFailure && LEAVES_NOTHING.has(error.kind) ? 'nothing' : 'broken');
    if (!(error instanceof LockerFailure)) throw error;
    // The limit of a file system with shorter names shows only when the name is created.
    const what = error.kind === 'name' ? 'FILENAME or Job-Id gives an upload name that is too long: ' : '';
    throw new Refusal(STATUS_OF_FAILURE[error.kind], what + error.message);
  }
}

function isEqual(one: Content | undefined, other: { bytes: Content['bytes']; sha256: Digests | undefined }): boolean {
  return STREAMS.every((name) => one?.bytes[name] === other.bytes[name] && one.sha256[name] === other.sha256?.[name]);
}

/** The path of the upload below IncomingDirectory. */
function uploadName(exchange: Exchange): string {
  return expandTokens(exchange.settings.putNameFormat, tokenFacts(exchange));
}

/**
 * Checks the name of an upload. Throws Refusal 450 for one that no upload can have: with a segment
 * of dots only, or too long to be stored.
 */
function checkName({ settings }: Exchange, name: string): void {
  if (/(?:^|\/)\.{1,2}(?:\/|$)/.test(name)) throw new Refusal(450, 'Job-Id gives an impossible file name');
  const problem = findTooLong(`${settings.incomingDirectory}/${name}`, settings.overwriteExistingFiles);
  if (problem) throw new Refusal(450, `FILENAME or Job-Id gives an upload name that is too long: ${problem}`);
}

/** A process id with the maximum number of digits. */
const LARGEST_PID = 2 ** 22;

/**
 * Checks the upload's name before the command is served. Throws Refusal 450 when the output could
 * not be stored, because running the command would be useless.
 */
export function checkUploadName(exchange: Exchange): void {
  if (!exchange.settings.enablePutService) return;
  checkName(exchange, uploadName({ ...exchange, sequence: Math.max(exchange.sequence, LARGEST_PID) }));
}
