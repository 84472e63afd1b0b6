// A connection from a web server to a FastCGI responder: one request at a time, whatever the peer
// sends. Input may be late, cut off or malformed, and affects this connection only.
import { closeSync, readSync } from 'node:fs';
import type { Socket } from 'node:net';
import {
  type FastCgiRecord,
  formatEnding,
  formatPairs,
  formatRecord,
  formatStream,
  PROTOCOL_STATUSES,
  parseBeginning,
  parsePairs,
  RECORD_TYPES,
  RESPONDER_ROLE,
  RecordParser,
} from './fastcgi.ts';
import { type CgiRequest, requestFromEnv } from './request.ts';
import { type CgiResponse, formatHead } from './response.ts';
import type { CgiHandler } from './script.ts';
import { Spool } from './spool.ts';

/** The options of a connection, which come from its responder. */
export interface ConnectionOptions {
  /** Answers a request, like the handler of `serveScript`. */
  handler: CgiHandler;
  /**
   * Returns a directory for the body of a large request, or undefined to discard the rest of the
   * body. Must not throw.
   */
  findSpoolFolder: (request: CgiRequest) => string | undefined;
  /** Called with a request before its body arrives. Must not throw. */
  onRequest?: (request: CgiRequest) => void;
  /** Called with protocol errors of the peer and errors thrown by the handler. */
  onError: (error: Error) => void;
  /** The answer to FCGI_GET_VALUES. */
  maxConnections: number;
}

/**
 * The limit for the variables of a request, names and lengths included; httpd's own limits are well
 * below it.
 */
const MAX_PARAMS_BYTES = 1024 * 1024;
/** The number of bytes of an answer's file that are read at a time. */
const PIECE_BYTES = 65_528;

interface Exchange {
  requestId: number;
  keepConnection: boolean;
  /** The variables received so far; undefined when they are complete. */
  params: Buffer[] | undefined;
  paramsBytes: number;
  request: CgiRequest | undefined;
  spool: Spool | undefined;
  /** The part of the answer's file that was not sent yet. */
  file: { fd: number; left: number } | undefined;
  afterwards: (() => void) | undefined;
  atEnd: (() => void) | undefined;
  isAnswered: boolean;
}

/**
 * Serves the requests of one accepted socket, one after another, until the peer leaves or end() is
 * called.
 */
export class Connection {
  readonly socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #parser = new RecordParser();
  #exchange: Exchange | undefined;
  #isLast = false;
  /** The number of finished requests. */
  served = 0;

  constructor(socket: Socket, options: ConnectionOptions) {
    this.socket = socket;
    this.#options = options;
    socket.on('data', (bytes: Buffer) => this.#receive(bytes));
    socket.on('end', () => this.#hangUp());
    socket.on('close', () => this.#hangUp());
    // The event 'close' follows.
    socket.on('error', () => {});
  }

  /** Whether a request has begun and its answer was not sent completely. */
  get isBusy(): boolean {
    return this.#exchange !== undefined;
  }

  /**
   * Ends the connection after the current request, or now if there is none. A connection without
   * any request so far ends after its first, which must be on its way.
   */
  end(): void {
    this.#isLast = true;
    if (!this.#exchange && this.served > 0) this.socket.end();
  }

  #receive(bytes: Buffer): void {
    this.socket.cork();
    try {
      for (const record of this.#parser.push(bytes)) this.#takeRecord(record);
    } catch (error) {
      this.#options.onError(error as Error);
      this.socket.destroy();
    } finally {
      this.socket.uncork();
    }
    // The peer sends requests without reading the answers.
    if (this.socket.writableNeedDrain) {
      this.socket.pause();
      this.socket.once('drain', () => this.socket.resume());
    }
  }

  #takeRecord(record: FastCgiRecord): void {
    const { type, requestId, content } = record;
    if (this.socket.destroyed) return;
    if (requestId === 0) this.#manage(record);
    else if (type === RECORD_TYPES.beginRequest) this.#begin(requestId, content);
    else if (this.#exchange?.requestId === requestId && !this.#exchange.isAnswered)
      this.#continue(this.#exchange, record);
    // The peer has aborted a request that is being answered.
    else if (this.#exchange?.requestId === requestId && type === RECORD_TYPES.abortRequest)
      this.#finish(this.#exchange);
    // All other records concern a request that has ended.
  }

  #manage({ type, content }: FastCgiRecord): void {
    if (type === RECORD_TYPES.getValues) {
      const known = new Map([
        ['FCGI_MAX_CONNS', String(this.#options.maxConnections)],
        ['FCGI_MAX_REQS', String(this.#options.maxConnections)],
        ['FCGI_MPXS_CONNS', '0'],
      ]);
      const names = new Set(parsePairs(content).map(([name]) => name));
      const values = formatPairs([...known].filter(([name]) => names.has(name)));
      this.socket.write(formatRecord({ type: RECORD_TYPES.getValuesResult, requestId: 0, content: values }));
      return;
    }
    const unknown = Buffer.from([type, 0, 0, 0, 0, 0, 0, 0]);
    this.socket.write(formatRecord({ type: RECORD_TYPES.unknownType, requestId: 0, content: unknown }));
  }

  #begin(requestId: number, content: Buffer): void {
    const { role, keepConnection } = parseBeginning(content);
    if (this.#exchange) {
      if (this.#exchange.requestId === requestId) throw new SyntaxError('a request began twice');
      this.socket.write(formatEnding(requestId, PROTOCOL_STATUSES.cannotMultiplex));
    } else if (role !== RESPONDER_ROLE) {
      this.socket.write(formatEnding(requestId, PROTOCOL_STATUSES.unknownRole));
      if (!keepConnection || this.#isLast) this.socket.end();
    } else if (this.socket.writable) {
      const nothingYet = {
        request: undefined,
        spool: undefined,
        file: undefined,
        afterwards: undefined,
        atEnd: undefined,
      };
      this.#exchange = { requestId, keepConnection, params: [], paramsBytes: 0, ...nothingYet, isAnswered: false };
    }
  }

  #continue(exchange: Exchange, { type, content }: FastCgiRecord): void {
    if (type === RECORD_TYPES.abortRequest) {
      if (exchange.request) this.#serve(exchange);
      else this.#finish(exchange);
    } else if (type === RECORD_TYPES.params) {
      this.#takeParams(exchange, content);
    } else if (type === RECORD_TYPES.stdin) {
      if (!exchange.spool) throw new SyntaxError('a body before the end of the variables');
      if (content.length > 0) exchange.spool.append(content);
      else this.#serve(exchange);
    }
  }

  #takeParams(exchange: Exchange, content: Buffer): void {
    if (!exchange.params) return;
    if (content.length > 0) {
      exchange.paramsBytes += content.length;
      if (exchange.paramsBytes > MAX_PARAMS_BYTES) throw new RangeError('more variables than a request may have');
      exchange.params.push(Buffer.from(content));
      // A peer that sends single bytes must not cost more than any other.
      if (exchange.params.length > 64) exchange.params = [Buffer.concat(exchange.params)];
      return;
    }
    const request = requestFromEnv(Object.fromEntries(parsePairs(Buffer.concat(exchange.params))));
    exchange.params = undefined;
    exchange.request = request;
    this.#options.onRequest?.(request);
    exchange.spool = new Spool(request.contentLength, () => this.#options.findSpoolFolder(request));
  }

  /**
   * Serves a request whose body is complete or never will be; the handler notices by its length.
   */
  #serve(exchange: Exchange): void {
    const { request, spool } = exchange;
    if (!request || !spool) return;
    exchange.isAnswered = true;
    // From here on the handler owns the spool, even if the exchange ends early.
    exchange.spool = undefined;
    let given: CgiResponse | Promise<CgiResponse>;
    try {
      given = this.#options.handler(request, spool);
    } catch (error) {
      given = this.#failed(error);
    }
    const answer = (response: CgiResponse): void => {
      spool.close();
      this.#answer(exchange, response);
    };
    if (given instanceof Promise) void given.catch((error) => this.#failed(error)).then(answer);
    else answer(given);
  }

  #failed(error: unknown): CgiResponse {
    this.#options.onError(error as Error);
    return { status: 500, reason: 'Internal Server Error', headers: [], contentLength: 0 };
  }

  #answer(exchange: Exchange, given: CgiResponse): void {
    let response = given;
    // The peer left or aborted the request while the handler was working.
    if (exchange !== this.#exchange) {
      closeContent(response);
      response.atEnd?.();
      return;
    }
    try {
      exchange.atEnd = response.atEnd;
      this.#sendStdout(exchange, Buffer.from(formatHead(response, 'parsed'), 'latin1'));
    } catch (error) {
      closeContent(response);
      response = this.#failed(error);
      this.#sendStdout(exchange, Buffer.from(formatHead(response, 'parsed'), 'latin1'));
    }
    exchange.afterwards = response.afterwards;
    const { content, contentLength } = response;
    if (content instanceof Uint8Array) this.#sendStdout(exchange, Buffer.from(content.subarray(0, contentLength)));
    else if (content) exchange.file = { fd: content.fd, left: contentLength };
    this.#sendFile(exchange);
  }

  #sendStdout(exchange: Exchange, bytes: Buffer): void {
    for (const record of formatStream(RECORD_TYPES.stdout, exchange.requestId, bytes)) this.socket.write(record);
  }

  /** Sends the answer's file as fast as the peer reads. */
  #sendFile(exchange: Exchange): void {
    const { file } = exchange;
    while (file && file.left > 0 && exchange === this.#exchange) {
      const piece = readPiece(file.fd, Math.min(file.left, PIECE_BYTES));
      if (!piece || this.socket.destroyed) {
        // The file shrank, or the peer left. The connection is broken off, because a regular end
        // would declare the answer complete.
        this.socket.destroy();
        this.#finish(exchange);
        return;
      }
      file.left -= piece.length;
      this.#sendStdout(exchange, piece);
      if (this.socket.writableNeedDrain) {
        this.socket.once('drain', () => this.#sendFile(exchange));
        return;
      }
    }
    if (exchange === this.#exchange) this.#finish(exchange);
  }

  #finish(exchange: Exchange): void {
    if (exchange !== this.#exchange) return;
    this.#exchange = undefined;
    this.served += 1;
    // Called before the peer gets the end, because it may send its next request to another process
    // right away.
    exchange.atEnd?.();
    exchange.spool?.close();
    if (exchange.file) closeSync(exchange.file.fd);
    if (this.socket.writable) {
      const end = formatRecord({ type: RECORD_TYPES.stdout, requestId: exchange.requestId, content: Buffer.alloc(0) });
      this.socket.write(Buffer.concat([end, formatEnding(exchange.requestId, PROTOCOL_STATUSES.complete)]));
      if (!exchange.keepConnection || this.#isLast) this.socket.end();
    }
    exchange.afterwards?.();
  }

  /**
   * The peer sends nothing more. A request with an incomplete body is still served: as with a CGI
   * script, the handler decides what to do with the part that arrived.
   */
  #hangUp(): void {
    const exchange = this.#exchange;
    this.#isLast = true;
    if (exchange && !exchange.isAnswered) {
      if (exchange.request) this.#serve(exchange);
      else this.#finish(exchange);
    } else if (exchange && this.socket.destroyed) this.#finish(exchange);
    if (!this.#exchange && this.socket.writable) this.socket.end();
  }
}

function closeContent({ content }: CgiResponse): void {
  if (content && 'fd' in content) closeSync(content.fd);
}

/** Reads the next piece of a file; undefined at its end, and when it cannot be read. */
function readPiece(fd: number, length: number): Buffer | undefined {
  try {
    const buffer = Buffer.allocUnsafe(length);
    const count = readSync(fd, buffer, 0, length, null);
    return count === 0 ? undefined : buffer.subarray(0, count);
  } catch {
    return undefined;
  }
}
