// Writes the files of a BagIt bag, and takes the SHA-256 of what is written while it is written.
import { createHash, type Hash } from 'node:crypto';
import { closeSync, createReadStream, mkdirSync, openSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { writeAll } from 'webjob-locker/durable';
import { BAG_DECLARATION, formatBagList, PAYLOAD_LIST, TAG_LIST } from '../../evidence/bag.ts';

/** What was written of a stream. */
export interface Written {
  size: number;
  /** By algorithm, in lower-case hex. */
  digests: ReadonlyMap<string, string>;
  /** The first bytes, as many as were wanted. */
  head: Buffer;
}

export interface Wanted {
  /** Beside SHA-256. */
  algorithms?: readonly string[];
  headBytes?: number;
}

/** What was to be copied cannot be read; the message is for people. */
export class UnreadableStream extends Error {}

export class BagWriter {
  readonly #folder: string;
  readonly #digests = new Map<string, string>();
  #bytes = 0;
  #files = 0;

  /** The folder is there, and empty. */
  constructor(folder: string) {
    this.#folder = folder;
  }

  /** `octets.files` of what is below data/ (RFC 8493, section 2.2.2). */
  get oxum(): string {
    return `${this.#bytes}.${this.#files}`;
  }

  has(path: string): boolean {
    return this.#digests.has(path);
  }

  /** In lower-case hex. */
  digestOf(path: string): string {
    return this.#digests.get(path) ?? '';
  }

  /** What was written. */
  read(path: string): AsyncIterable<Buffer> {
    return createReadStream(join(this.#folder, path));
  }

  paths(): string[] {
    return [...this.#digests.keys()];
  }

  /** Throws the error of a system call, EEXIST for a file that is there. */
  addText(path: string, content: string | Buffer): void {
    const bytes = Buffer.from(content);
    const file = this.#open(path, []);
    try {
      file.write(bytes);
    } finally {
      file.end();
    }
  }

  /** Copies a stream. Throws UnreadableStream when it cannot be read to its end: then nothing is left of it. */
  async addStream(
    path: string,
    chunks: AsyncIterable<Buffer> | Iterable<Buffer>,
    wanted: Wanted = {},
  ): Promise<Written> {
    const { algorithms = [], headBytes = 0 } = wanted;
    const file = this.#open(path, algorithms);
    const head: Buffer[] = [];
    let left = headBytes;
    try {
      for await (const chunk of reading(chunks)) {
        file.write(chunk);
        if (left > 0) head.push(Buffer.from(chunk.subarray(0, left)));
        left -= Math.min(left, chunk.length);
      }
    } catch (error) {
      file.drop();
      throw error;
    }
    return { ...file.end(), head: Buffer.concat(head) };
  }

  /** Adds the declaration and the lists. Returns the SHA-256 of the list that covers all others. */
  finish(): string {
    const isData = ([path]: [string, string]): boolean => path.startsWith('data/');
    this.addText('bagit.txt', BAG_DECLARATION);
    this.addText(PAYLOAD_LIST, formatBagList(new Map([...this.#digests].filter(isData))));
    this.addText(TAG_LIST, formatBagList(new Map([...this.#digests].filter((entry) => !isData(entry)))));
    return this.digestOf(TAG_LIST);
  }

  #open(path: string, algorithms: readonly string[]) {
    const target = join(this.#folder, path);
    mkdirSync(dirname(target), { recursive: true });
    const fd = openSync(target, 'wx', 0o600);
    const hashes = new Map<string, Hash>(['sha256', ...algorithms].map((name) => [name, createHash(name)]));
    let size = 0;
    return {
      write: (bytes: Buffer): void => {
        writeAll(fd, bytes);
        for (const hash of hashes.values()) hash.update(bytes);
        size += bytes.length;
      },
      end: (): Omit<Written, 'head'> => {
        closeSync(fd);
        const digests = new Map([...hashes].map(([name, hash]) => [name, hash.digest('hex')]));
        this.#digests.set(path, digests.get('sha256') ?? '');
        if (path.startsWith('data/')) {
          this.#bytes += size;
          this.#files += 1;
        }
        return { size, digests };
      },
      drop: (): void => {
        closeSync(fd);
        unlinkSync(target);
      },
    };
  }
}

async function* reading(chunks: AsyncIterable<Buffer> | Iterable<Buffer>): AsyncGenerator<Buffer> {
  try {
    yield* chunks;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new UnreadableStream(code ?? message, { cause: error });
  }
}
