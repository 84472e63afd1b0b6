// Receivers of alerts, as real servers on this machine: a webhook, which fails, hangs and redirects
// on demand, and a mail server.
import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { SMTPServer, type SMTPServerOptions } from 'smtp-server';

/** A request as it arrived. */
export interface Received {
  method: string;
  path: string;
  headers: IncomingHttpHeaders;
  body: string;
}

export interface HttpSink {
  origin: string;
  /** Everything that arrived, answered or not. */
  received: Received[];
  /** The answers to the next requests, one each; then 204. */
  answers: ((response: ServerResponse, request: Received) => void)[];
  close(): Promise<void>;
}

export async function startHttpSink(host = '127.0.0.1'): Promise<HttpSink> {
  const [received, answers]: [Received[], HttpSink['answers']] = [[], []];
  const server = createServer(async (request, response) => {
    const { method = '', url = '', headers } = request;
    const one = { method, path: url, headers, body: await text(request) };
    received.push(one);
    const answer = answers.shift();
    if (answer) answer(response, one);
    else response.writeHead(204).end();
  });
  server.listen(0, host);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    origin: `http://${host}:${port}`,
    received,
    answers,
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

/** Answers according to `answers`. */
export const status =
  (code: number, headers: Record<string, string> = {}) =>
  (response: ServerResponse) =>
    void response.writeHead(code, headers).end();
/** Never answers. */
export const hang = (): void => {};

export interface MailSink {
  port: number;
  /** The envelope and text of every accepted mail. */
  mails: { from: string; to: string[]; user: string | undefined; isSecure: boolean; text: string }[];
  close(): Promise<void>;
}

/** A mail server; by default one that asks for no password. */
export async function startMailSink(options: SMTPServerOptions = {}): Promise<MailSink> {
  const mails: MailSink['mails'] = [];
  const server = new SMTPServer({
    authOptional: true,
    disabledCommands: options.onAuth ? [] : ['STARTTLS', 'AUTH'],
    onData(stream, session, done) {
      text(stream).then((content) => {
        const { mailFrom, rcptTo } = session.envelope;
        mails.push({
          from: mailFrom ? mailFrom.address : '',
          to: rcptTo.map(({ address }) => address),
          user: session.user as string | undefined,
          isSecure: session.secure,
          text: content,
        });
        done();
      }, done);
    },
    ...options,
  });
  server.on('error', () => {});
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.server.address() as AddressInfo;
  return { port, mails, close: () => new Promise((resolve) => server.close(() => resolve())) };
}
