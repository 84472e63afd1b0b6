// Job ids as this server issues them: `<ServerId>_<epoch seconds>_<sequence>` (docs/protocol.md,
// section 5). The sequence is the process id of a CGI script, as in the original; a persistent
// worker counts on from there.

/** The parts of a job id. */
export interface JobId {
  serverId: string;
  /** Seconds since 1970-01-01 UTC. */
  epochSeconds: number;
  sequence: number;
}

/** Formats ten digits of time and at least five of sequence: `server_1_1085355126_00723`. */
export function formatJobId(id: JobId): string {
  return `${id.serverId}_${String(id.epochSeconds).padStart(10, '0')}_${String(id.sequence).padStart(5, '0')}`;
}

/** Parses a job id of this form; undefined for any other form. */
export function findJobIdParts(text: string): JobId | undefined {
  const match = /^([A-Za-z0-9_.-]{1,64})_([0-9]{10})_([0-9]{5}|[1-9][0-9]{5,14})$/.exec(text);
  if (!match?.[1]) return undefined;
  return { serverId: match[1], epochSeconds: Number(match[2]), sequence: Number(match[3]) };
}

/**
 * Reads the seconds in a job id, as findJobIdParts does, without making an object: for callers with
 * the job ids of a large fleet.
 */
export function findJobIdTime(text: string): number | undefined {
  const end = text.lastIndexOf('_');
  const start = text.lastIndexOf('_', end - 1);
  const isOurs = end - start === 11 && /^[A-Za-z0-9_.-]{1,64}_[0-9]{10}_(?:[0-9]{5}|[1-9][0-9]{5,14})$/.test(text);
  return isOurs ? Number(text.slice(start + 1, end)) : undefined;
}
