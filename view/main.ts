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

const HELP = `Usage: webjob-view --listen PLACE [--processes N] [--idle SECONDS]
       webjob-view --index

serve pages about the jobs of a WebJob site. httpd starts it as a CGI script.

  --listen PLACE    run as a persistent process that listens at a path or a port of 127.0.0.1
  --processes N     the number of processes that share the socket
  --idle SECONDS    end after this time without a request
  --index           make or update the index, and exit
  --version         print the version
  -h, --help        print this help

WEBJOB_PROPERTIES_FILE names the site's nph-webjob.cfg. See webjob-view(8).
`;

function logProblem(message: string): void {
  process.stderr.write(`webjob-view: ${safeText(message)}\n`);
}

function main(): void {
  process.umask(0o077);
  // httpd passes a query without "=" to a CGI script as its arguments.
  const option = process.env.GATEWAY_INTERFACE === undefined ? process.argv[2] : undefined;
  if (option === '--version' || option === '--help' || option === '-h') {
    process.stdout.write(option === '--version' ? `webjob-view ${WEBJOB_VERSION}\n` : HELP);
    return;
  }
  if (!hasSqlite()) {
    const words = `requires Node 22.13 or later (running ${process.version})`;
    logProblem(`error: ${words}`);
    if (process.env.GATEWAY_INTERFACE !== undefined)
      process.stdout.write(
        `Status: 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\nwebjob-view ${words}\n`,
      );
    process.exitCode = 4;
  } else if (option === '--index') {
    void index();
  } else if (process.env.GATEWAY_INTERFACE !== undefined) {
    const handler = makeViewHandler({ patienceMs: PATIENCE_MS.script, logProblem });
    serveScript(handler, { env: process.env, style: 'parsed' });
  } else {
    const handler = makeViewHandler({ patienceMs: PATIENCE_MS.staying, logProblem });
    stay({
      openResponder: () =>
        createResponder({
          handler,
          findSpoolFolder: () => undefined,
          onError: (error) => logProblem(`FastCGI: ${error.stack ?? error.message}`),
        }),
      logProblem,
    });
  }
}

async function index(): Promise<void> {
  try {
    await fillViewStore(readPlace(process.env));
  } catch (error) {
    logProblem(`error: ${(error as Error).message}`);
    process.exitCode = 4;
  }
}

main();
