// Where a text stands in what clients sent: the store tells in which uploads it can be, and these are read.
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
  /** The units of which an upload can hold it; undefined when every one can. */
  units: readonly string[] | undefined;
  /** The first lines of an upload in the locker that hold it, at most so many. What is in a pack is not read. */
  find(job: Job, limit: number): Promise<TextHit[]>;
}

/** More is not read of one stream: `webjobctl search` reads all. */
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

/** The beginning of a stream, as much as the time allows. */
async function* bounded(pieces: AsyncIterable<Buffer>, deadline: number): AsyncGenerator<Buffer> {
  let bytes = 0;
  for await (const piece of pieces) {
    yield piece;
    bytes += piece.length;
    if (bytes >= MAX_BYTES || performance.now() > deadline) return;
  }
}
