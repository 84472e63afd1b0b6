// Writes the files of a BagIt bag, and computes their SHA-256 while they are written.
import { createHash, type Hash } from 'node:crypto';
import { closeSync, createReadStream, mkdirSync, openSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { writeAll } from 'webjob-locker/durable';
import { BAG_DECLARATION, formatBagList, PAYLOAD_LIST, TAG_LIST } from '../../evidence/bag.ts';

/** A stream that was written. */
export interface Written {
  size: number;
  /** Digests in lower-case hex, by algorithm. */
  digests: ReadonlyMap<string, string>;
  /** The first bytes, as many as were requested. */
  head: Buffer;
}

export interface Wanted {
  /** Algorithms besides SHA-256. */
  algorithms?: readonly string[];
  headBytes?: number;
}

/** A source cannot be read; the message is for people. */
export class UnreadableStream extends Error {}

export class BagWriter {
  readonly #folder: string;
  readonly #digests = new Map<string, string>();
  #bytes = 0;
  #files = 0;

  /** @param folder an existing, empty directory */
  constructor(folder: string) {
    this.#folder = folder;
  }

  /** `octets.files` of the payload below data/ (RFC 8493, section 2.2.2). */
  get oxum(): string {
    return `${this.#bytes}.${this.#files}`;
  }

  has(path: string): boolean {
    return this.#digests.has(path);
  }

  /** The digest of a file in lower-case hex. */
  digestOf(path: string): string {
    return this.#digests.get(path) ?? '';
  }

  /** Reads a file of the bag. */
  read(path: string): AsyncIterable<Buffer> {
    return createReadStream(join(this.#folder, path));
  }

  paths(): string[] {
    return [...this.#digests.keys()];
  }

  /** Adds a file. Throws the error of a system call, EEXIST for a file that exists. */
  addText(path: string, content: string | Buffer): void {
    const bytes = Buffer.from(content);
    const file = this.#open(path, []);
    try {
      file.write(bytes);
    } finally {
      file.end();
    }
  }

  /**
   * Copies a stream into the bag. Throws UnreadableStream when it cannot be read to its end; the
   * partial copy is removed.
   */
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
