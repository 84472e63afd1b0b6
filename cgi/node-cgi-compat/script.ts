// Runs a plain CGI script: one process, one request (RFC 3875). Reads the environment and
// descriptor 0, passes both to a handler, and writes its answer to descriptor 1. Never touches
// process.stdin or process.stdout.
import { type Body, drainBody, type OpenBody, openBody } from './body.ts';
import { type CgiEnvironment, type CgiRequest, requestFromEnv } from './request.ts';
import { type CgiResponse, type HeaderStyle, writeResponse } from './response.ts';

/**
 * Answers a request, immediately or with a promise. Must not throw: an error ends the process with
 * an empty answer. The body can be read until the answer is returned, not later.
 */
export type CgiHandler = (request: CgiRequest, body: Body) => CgiResponse | Promise<CgiResponse>;

/** Where the request comes from and the answer goes; by default descriptors 0 and 1. */
export interface ScriptOptions {
  env: CgiEnvironment;
  style: HeaderStyle;
  stdin?: number;
  stdout?: number;
}

/**
 * Serves the one request this process was started for. The body is read to its end before the first
 * byte of the answer is sent: a web server passes a script the whole body before it reads the
 * answer, and an exit with unread input loses the answer.
 */
export function serveScript(handler: CgiHandler, options: ScriptOptions): void {
  const request = requestFromEnv(options.env);
  const body = openBody(options.stdin ?? 0, request.contentLength);
  const given = handler(request, body);
  if (given instanceof Promise) void given.then((response) => answerScript(response, body, options));
  else answerScript(given, body, options);
}

function answerScript(response: CgiResponse, body: OpenBody, options: ScriptOptions): void {
  const answer = (): void => {
    try {
      writeResponse(options.stdout ?? 1, response, options.style);
    } finally {
      response.atEnd?.();
    }
    response.afterwards?.();
  };
  if (response.drainLimitMs === undefined) {
    drainBody(body);
    answer();
    return;
  }
  body.drainFor(response.drainLimitMs, (isRead) => {
    answer();
    // exit() would wait for the read, and so for the client.
    if (!isRead) process.kill(process.pid, 'SIGKILL');
  });
}
