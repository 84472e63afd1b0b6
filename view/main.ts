// The program that httpd or systemd starts: the view as a CGI script, or as a persistent process.
import { serveScript } from 'node-cgi-compat';
import { createResponder } from 'node-cgi-compat/responder';
import { stay } from '../cgi/persistent.ts';
import { safeText } from '../cli/output.ts';
import { hasSqlite } from '../ledger/sqlite.ts';
import { makeViewHandler } from './handle.ts';
import { fillViewStore, readPlace } from './place.ts';

declare const WEBJOB_VERSION: string;

/**
 * How long a request waits for the first index: a CGI script serves nobody else, but a persistent
 * process does.
 */
const PATIENCE_MS = { script: 30_000, staying: 2000 };

function complain(message: string): void {
  process.stderr.write(`webjob-view: ${safeText(message)}\n`);
}

function main(): void {
  process.umask(0o077);
  if (process.argv[2] === '--version') {
    process.stdout.write(`webjob-view ${WEBJOB_VERSION}\n`);
    return;
  }
  if (!hasSqlite()) {
    const words = `requires Node 22.13 or later (running ${process.version})`;
    complain(`error: ${words}`);
    if (process.env.GATEWAY_INTERFACE !== undefined)
      process.stdout.write(
        `Status: 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\nwebjob-view ${words}\n`,
      );
    process.exitCode = 4;
  } else if (process.argv[2] === '--index') {
    void index();
  } else if (process.env.GATEWAY_INTERFACE !== undefined) {
    const handler = makeViewHandler({ patienceMs: PATIENCE_MS.script, complain });
    serveScript(handler, { env: process.env, style: 'parsed' });
  } else {
    const handler = makeViewHandler({ patienceMs: PATIENCE_MS.staying, complain });
    stay({
      openResponder: () =>
        createResponder({
          handler,
          findSpoolFolder: () => undefined,
          onError: (error) => complain(`FastCGI: ${error.stack ?? error.message}`),
        }),
      complain,
    });
  }
}

async function index(): Promise<void> {
  try {
    await fillViewStore(readPlace(process.env));
  } catch (error) {
    complain(`error: ${(error as Error).message}`);
    process.exitCode = 4;
  }
}

main();
