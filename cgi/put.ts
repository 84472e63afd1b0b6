// receiveUpload: lengths, then the deposit. The bytes themselves are the locker's business.
import { join } from 'node:path';
import { drainBody } from 'node-cgi-compat';
import {
  type Digests,
  digestStreams,
  groupPaths,
  LockerFailure,
  type LockerFailureKind,
  storeUpload,
} from 'webjob-locker';
import { NOT_APPLICABLE, type PutQuery, type Status } from 'webjob-protocol';
import { readContent, recordDeposit } from './custody.ts';
import { type Answer, type Exchange, tokenFacts } from './exchange.ts';
import { inspectUpload } from './hooks.ts';
import { Refusal } from './refusal.ts';
import { expandTokens } from './tokens.ts';

const STATUS_OF_FAILURE: Record<LockerFailureKind, Status> = { exists: 451, full: 507, short: 456, failed: 500 };

/** Throws Refusal 451, 456, 500, 507 or 551. When it returns 200, the upload is on disk. */
export function receiveUpload(exchange: Exchange, query: PutQuery): Answer {
  const { request, body, settings } = exchange;
  const total = query.outLength + query.errLength + query.envLength;
  if (!Number.isSafeInteger(total) || total !== request.contentLength) {
    throw new Refusal(456, 'Content-Length is not the sum of the three lengths');
  }
  if (query.runType === 'linktest') {
    if (drainBody(body) !== total) throw new Refusal(456, 'the body ended early');
    return { status: 251 };
  }
  const name = uploadName(exchange);
  const base = join(settings.incomingDirectory, name);
  const lengths = { out: query.outLength, err: query.errLength, env: query.envLength };
  const { enableCustody, enableRequestTracking, putHookEnable } = settings;
  const digested = enableCustody || enableRequestTracking ? digestStreams(body, lengths) : undefined;
  let sha256: Digests | undefined;
  try {
    storeUpload(
      { base, lengths, jobId: exchange.jobId ?? NOT_APPLICABLE, overwrite: settings.overwriteExistingFiles },
      digested ?? body,
      (paths) => {
        sha256 = digested?.digests();
        if (putHookEnable) inspectUpload(exchange, paths);
        // A hook may have changed the files.
        if (sha256 && enableCustody)
          recordDeposit(exchange, name, putHookEnable ? readContent(paths) : { bytes: lengths, sha256 });
      },
    );
  } catch (error) {
    if (!(error instanceof LockerFailure)) throw error;
    throw new Refusal(STATUS_OF_FAILURE[error.kind], error.message);
  }
  return { status: 200, upload: groupPaths(base), digests: sha256 };
}

/** The upload's path below IncomingDirectory. Throws Refusal 450 when a job id would make a segment of dots alone. */
function uploadName(exchange: Exchange): string {
  const name = expandTokens(exchange.settings.putNameFormat, tokenFacts(exchange));
  if (/(?:^|\/)\.{1,2}(?:\/|$)/.test(name)) throw new Refusal(450, 'Job-Id makes no name for a file');
  return name;
}
