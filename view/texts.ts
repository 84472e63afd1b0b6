// Finds a text in the streams that clients sent: the store narrows down the uploads, and only those
// are read.
import { STREAMS, type StreamName } from 'webjob-locker';
import { type Hit, searchLines } from '../admin/search/lines.ts';
import type { Job } from '../ledger/job.ts';
import { findStreams } from '../ledger/streams.ts';
import { findUnits } from '../ledger/texts.ts';
import type { Context } from './context.ts';

export interface TextHit extends Hit {
  stream: StreamName;
}

export interface TextSearch {
  /** The units whose uploads may contain the text; undefined when all may. */
  units: readonly string[] | undefined;
  /**
   * The first matching lines, at most `limit`, of an upload in the locker. Archives are not read.
   */
  find(job: Job, limit: number): Promise<TextHit[]>;
}

/** The maximum number of bytes that are read of a stream; `webjobctl search` reads everything. */
const MAX_BYTES = 16 * 1024 * 1024;

export function makeTextSearch({ database, site, deadline }: Context, text: string): TextSearch {
  return {
    units: findUnits(database, text),
    async find({ group }, limit) {
      const hits: TextHit[] = [];
      if (!group) return hits;
      const stored = findStreams(site, group);
      for (const stream of STREAMS) {
        const found = stored[stream];
        if (!found || found.bytes === 0) continue;
        for await (const hit of searchLines(bounded(found.read(), deadline), (line) => line.includes(text))) {
          hits.push({ stream, ...hit });
          if (hits.length >= limit) return hits;
        }
      }
      return hits;
    },
  };
}

/** The beginning of a stream, as far as time allows. */
async function* bounded(pieces: AsyncIterable<Buffer>, deadline: number): AsyncGenerator<Buffer> {
  let bytes = 0;
  for await (const piece of pieces) {
    yield piece;
    bytes += piece.length;
    if (bytes >= MAX_BYTES || performance.now() > deadline) return;
  }
}
