// The program that httpd starts: chooses between CGI and FastCGI and passes handleRequest() to it.
import { type HeaderStyle, serveScript } from 'node-cgi-compat';
import { appendCustodyOf, runAlone } from 'webjob-locker';
import { parsePutQuery } from 'webjob-protocol';
import { handleRequest, handleSteps } from './handle.ts';
import { admitEarly } from './limits.ts';
import { logProblem } from './log.ts';
import { overrideSettings } from './overrides.ts';
import type { serveResident } from './resident.ts';
import { DEFAULT_FILES, readSettings } from './settings.ts';

/** Built as a separate file, found beside the real path of this one. */
const RESIDENT = './nph-webjob-resident.cjs';

// Without a handler Node would die as soon as httpd gives up on the client, leaving neither a log
// line nor a clean locker.
process.on('SIGTERM', () => {});
process.umask(0o022);

if (process.env.GATEWAY_INTERFACE === undefined) {
  stay();
} else {
  serveScript(handleRequest, { env: process.env, style: headerStyle(process.env) });
}

/**
 * httpd passes a script's bytes on verbatim when the name of its file, or of the link to it, begins
 * with `nph-`. Under a wrapper that speaks FastCGI, such as fcgiwrap for nginx, a status line would
 * be dropped, and every refusal would become a 200.
 */
function headerStyle(env: NodeJS.ProcessEnv): HeaderStyle {
  if (env.FCGI_ROLE !== undefined) return 'parsed';
  const scriptFilename = env.SCRIPT_FILENAME;
  return scriptFilename === undefined || /(?:^|\/)nph-[^/]*$/.test(scriptFilename) ? 'nph' : 'parsed';
}

/**
 * Serves as a persistent worker with the second file, which a site with plain CGI does not need.
 */
function stay(): void {
  try {
    const resident: { serveResident: typeof serveResident } = require(RESIDENT);
    const serving = { handleRequest, handleSteps, admitEarly, appendCustodyOf, runAlone };
    resident.serveResident({ ...serving, readSettings, overrideSettings, parsePutQuery, logProblem, DEFAULT_FILES });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    logProblem(
      `error: httpd starts this script; as a persistent worker, it needs ${RESIDENT} beside it: ${code ?? message}`,
    );
    process.exitCode = 1;
  }
}
