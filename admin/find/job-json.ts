// A job as `--json` prints it: documented in webjobctl(8), and stable.
import type { LogLine } from 'webjob-protocol';
import { instantOf } from '../history/log.ts';
import type { Job } from '../job.ts';
import type { Site } from '../site.ts';

/**
 * What is not known is null, times are ISO 8601 in UTC, `group` is a path below IncomingDirectory without an extension. `site` is there when
 * several are read, `clockSkew` when it exceeds a minute.
 */
export function jobJson(site: Site, job: Job): Record<string, unknown> {
  return {
    ...siteJson(site),
    jobId: job.jobId ?? null,
    client: job.clientId ?? null,
    command: job.command ?? null,
    state: job.state,
    at: job.at.toISOString(),
    exitCode: job.exitCode ?? null,
    signal: job.signal ?? null,
    ...(job.clockSkew !== undefined && { clockSkew: job.clockSkew }),
    group: job.group?.name ?? null,
    uploads: job.uploads.map(({ name }) => name),
    pack: describePlace(job) ?? null,
    get: requestJson(site, job.get),
    put: requestJson(site, job.put),
  };
}

/** The nph-webjob.cfg of one of several sites. */
export function siteJson({ label }: Site): Record<string, unknown> {
  return label === undefined ? {} : { site: label };
}

/** In which pack the upload is, and under which name: `2026-10-01: client1_…`. */
export function describePlace({ packed }: Job): string | undefined {
  return packed && `${packed.pack}: ${packed.name}`;
}

function requestJson(site: Site, line: LogLine | undefined): Record<string, unknown> | null {
  if (!line) return null;
  return {
    at: instantOf(line, site).toISOString(),
    user: line.remoteUser ?? null,
    address: line.remoteAddress ?? null,
    bytesReceived: line.bytesReceived ?? null,
    bytesSent: line.bytesSent,
    seconds: line.seconds,
    status: line.status,
    message: line.message,
  };
}
