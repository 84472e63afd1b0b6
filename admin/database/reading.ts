// Reads a group for the index: its texts, and from the same bytes whose it is and how its run ended. Knows no database.
import { readSync, type Stats } from 'node:fs';
import { join } from 'node:path';
import { type Extension, type Group, STREAMS, statGroupFile } from 'webjob-locker';
import { describeEnding, type Ending, parseRecordFields } from '../history/ending.ts';
import { MAX_HEAD_BYTES, readHeadAndStats, withFile } from '../history/head.ts';
import { parseJobId } from '../history/uploads.ts';

/** `env err out rdy` */
export function formatFiles(has: ReadonlySet<Extension>): string {
  return [...has].sort().join(' ');
}

/**
 * A complete group is what it was while its .rdy is: whoever replaces a group replaces that too. The job id comes with the stamp of a complete
 * group that is not the one that is known.
 */
export function stampGroup(
  locker: string,
  { name, has }: Group,
  known?: string,
): { stamp: string; jobId: string | undefined } {
  const format = (...found: (Pick<Stats, 'ino' | 'mtimeMs' | 'size'> | undefined)[]): string => {
    const marks = found.map((stats) => (stats ? `${stats.ino}:${stats.mtimeMs}:${stats.size}` : ''));
    return `${formatFiles(has)} ${marks.join(' ')}`;
  };
  if (!has.has('rdy'))
    return { stamp: format(...STREAMS.map((stream) => statGroupFile(locker, name, stream))), jobId: undefined };
  if (known !== undefined) {
    const stamp = format(statGroupFile(locker, name, 'rdy'));
    if (stamp === known) return { stamp, jobId: undefined };
  }
  const ready = readHeadAndStats(join(locker, `${name}.rdy`));
  return { stamp: format(ready?.stats), jobId: ready && parseJobId(ready.text) };
}

/** What is learned of a group that is read. */
export interface FreshGroup {
  name: string;
  /** Its extensions: `env err out rdy`. */
  files: string;
  stamp: string;
  jobId: string | undefined;
  body: string;
  /** The body is all of it. */
  isWhole: boolean;
  ending: Ending | undefined;
}

/** Reads the streams of one group after the other into the same memory. */
export function makeReader(
  locker: string,
  maxBytes: number,
): (group: Group) => Pick<FreshGroup, 'body' | 'isWhole' | 'ending'> {
  let buffer = Buffer.allocUnsafe(64 * 1024);
  /** Reads a file behind what is there already; where it ends. */
  const read = (fd: number, from: number): number => {
    for (let end = from; ; ) {
      if (end === buffer.length) buffer = Buffer.concat([buffer], 2 * buffer.length);
      const asked = Math.min(buffer.length, from + maxBytes + 1) - end;
      const count = readSync(fd, buffer, end, asked, end - from);
      end += count;
      // Of a file that ends, less is read than was asked for.
      if (count < asked || end > from + maxBytes) return end;
    }
  };
  return ({ name, has }) => {
    let isWhole = has.has('rdy');
    let ending: Ending | undefined;
    let length = 0;
    for (const stream of STREAMS) {
      const from = length;
      const end = has.has(stream) ? withFile(join(locker, `${name}.${stream}`), (fd) => read(fd, from)) : from;
      if (end === undefined || end - length > maxBytes) isWhole = false;
      if (end === undefined) continue;
      if (stream === 'env' && has.has('env'))
        ending = describeEnding(
          parseRecordFields(buffer.toString('latin1', length, Math.min(end, length + MAX_HEAD_BYTES))),
        );
      length = Math.min(end, length + maxBytes);
      if (length === buffer.length) buffer = Buffer.concat([buffer], 2 * buffer.length);
      buffer[length++] = 10;
    }
    // NUL would end the text for the tokenizer. What is no UTF-8 becomes U+FFFD, as it is for whoever searches.
    return { body: buffer.toString('utf8', 0, length).replaceAll('\0', '\ufffd'), isWhole, ending };
  };
}
