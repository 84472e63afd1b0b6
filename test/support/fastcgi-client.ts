// The web server's side of FastCGI for tests: one connection, which sends any records and collects
// everything that comes back.
import { connect, type Socket } from 'node:net';
import {
  type FastCgiRecord,
  formatBeginning,
  formatPairs,
  formatRecord,
  formatStream,
  RECORD_TYPES,
  RESPONDER_ROLE,
  RecordParser,
} from 'node-cgi-compat/responder';

/** The path of a socket, or a port. */
export type Place = string | number;

/** The answer of a responder to one request. */
export interface FastCgiAnswer {
  status: number;
  reason: string;
  /** By lower-case name. */
  headers: Map<string, string>;
  body: Buffer;
  stderr: string;
  /** The status in END_REQUEST; undefined when the connection ended without one. */
  protocolStatus: number | undefined;
}

const TIME_LIMIT_MS = 60_000;

/** The records of a whole request. */
export function formatRequest(
  requestId: number,
  variables: Readonly<Record<string, string>>,
  body: Buffer,
  keepConnection = false,
): Buffer {
  const end = (type: number): Buffer => formatRecord({ type, requestId, content: Buffer.alloc(0) });
  return Buffer.concat([
    formatRecord({
      type: RECORD_TYPES.beginRequest,
      requestId,
      content: formatBeginning({ role: RESPONDER_ROLE, keepConnection }),
    }),
    ...formatStream(RECORD_TYPES.params, requestId, formatPairs(Object.entries(variables))),
    end(RECORD_TYPES.params),
    ...formatStream(RECORD_TYPES.stdin, requestId, body),
    end(RECORD_TYPES.stdin),
  ]);
}

/** A connection whose records can be awaited. */
export class FastCgiClient {
  readonly socket: Socket;
  readonly #records: FastCgiRecord[] = [];
  readonly #parser = new RecordParser();
  #wake = (): void => {};
  isClosed = false;
  #isSilent = false;

  constructor(place: Place) {
    this.socket = connect(typeof place === 'string' ? { path: place } : { port: place, host: '127.0.0.1' });
    this.socket.setTimeout(TIME_LIMIT_MS, () => {
      this.#isSilent = true;
      this.socket.destroy();
    });
    this.socket.on('data', (bytes: Buffer) => {
      this.#records.push(
        ...Array.from(this.#parser.push(bytes), (it) => ({ ...it, content: Buffer.from(it.content) })),
      );
      this.#wake();
    });
    this.socket.on('error', () => {});
    this.socket.on('close', () => {
      this.isClosed = true;
      this.#wake();
    });
  }

  /**
   * The next record; undefined at the end of the connection. Throws Error when nothing arrives for
   * half a minute.
   */
  async next(): Promise<FastCgiRecord | undefined> {
    while (this.#records.length === 0 && !this.isClosed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#isSilent) throw new Error('neither a record nor the end of the connection came');
    return this.#records.shift();
  }

  /** Everything up to the END_REQUEST of a request. Records of other requests are an error. */
  async answer(requestId: number): Promise<FastCgiAnswer> {
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    let protocolStatus: number | undefined;
    for (let record = await this.next(); record; record = await this.next()) {
      if (record.requestId !== requestId) throw new Error(`a record of request ${record.requestId}`);
      if (record.type === RECORD_TYPES.stdout) out.push(record.content);
      else if (record.type === RECORD_TYPES.stderr) err.push(record.content);
      else if (record.type === RECORD_TYPES.endRequest) {
        protocolStatus = record.content[4];
        break;
      } else throw new Error(`a record of type ${record.type}`);
    }
    return { ...parseOutput(Buffer.concat(out)), stderr: Buffer.concat(err).toString(), protocolStatus };
  }

  close(): void {
    this.socket.destroy();
  }
}

/** One request on a connection of its own. */
export async function askFastCgi(
  place: Place,
  variables: Readonly<Record<string, string>>,
  body: Buffer = Buffer.alloc(0),
): Promise<FastCgiAnswer> {
  const client = new FastCgiClient(place);
  try {
    client.socket.write(formatRequest(1, variables, body));
    return await client.answer(1);
  } finally {
    client.close();
  }
}

function parseOutput(bytes: Buffer): Pick<FastCgiAnswer, 'status' | 'reason' | 'headers' | 'body'> {
  const end = bytes.indexOf('\r\n\r\n');
  const lines = bytes.toString('latin1', 0, Math.max(0, end)).split('\r\n');
  const headers = new Map(
    lines.map((line): [string, string] => [line.replace(/:.*/, '').toLowerCase(), line.replace(/^.*?: /, '')]),
  );
  const [, status = '0', reason = ''] = /^(\d+) (.*)$/.exec(headers.get('status') ?? '') ?? [];
  return { status: Number(status), reason, headers, body: bytes.subarray(end < 0 ? 0 : end + 4) };
}
