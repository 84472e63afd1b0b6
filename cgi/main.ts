// What httpd starts: picks the shell and hands it handleRequest, nothing else.
import { type HeaderStyle, serveScript } from 'node-cgi-compat';
import { handleRequest } from './handle.ts';
import { complain } from './log.ts';

// Without a handler Node dies at once when httpd gives the client up, and leaves neither log line nor a clean locker.
process.on('SIGTERM', () => {});
process.umask(0o022);

if (process.env.GATEWAY_INTERFACE === undefined) {
  complain('error: this is a CGI script; httpd starts it (see apache/README.md)');
  process.exitCode = 1;
} else {
  serveScript(handleRequest, { env: process.env, style: headerStyle(process.env.SCRIPT_FILENAME) });
}

/** httpd passes a script's bytes on verbatim when the name of its file, or of the link to it, begins with `nph-`. */
function headerStyle(scriptFilename: string | undefined): HeaderStyle {
  return scriptFilename === undefined || /(?:^|\/)nph-[^/]*$/.test(scriptFilename) ? 'nph' : 'parsed';
}
