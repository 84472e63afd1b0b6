// Serves a site without httpd: the CGI under the embedded host, with the site's own user file.
// Meant for experiments, not for a network.
import { createHash, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { delimiter, dirname, join } from 'node:path';
import { createCgiHost } from 'node-cgi-compat/host';
import type { Server } from './httpd.ts';
import type { Site } from './site.ts';

/** Serves a site on 127.0.0.1, like startHttpd(). */
export async function startEmbedded(site: Site, port = 0): Promise<Server> {
  const users = new Map(
    readFileSync(site.userFile, 'utf8')
      .split('\n')
      .map((line) => line.split(':{SHA}'))
      .map(([name = '', digest = '']) => [name, Buffer.from(digest, 'base64')]),
  );
  const server = createServer(
    createCgiHost({
      scriptName: '/webjob/nph-webjob.cgi',
      scriptFilename: join(site.cgiDirectory, 'nph-webjob.cgi'),
      env: {
        WEBJOB_PROPERTIES_FILE: site.propertiesFile,
        PATH: [dirname(process.execPath), process.env.PATH].join(delimiter),
      },
      authenticate: (user, password) => {
        const digest = createHash('sha1').update(password).digest();
        const expected = users.get(user);
        return expected?.length === digest.length && timingSafeEqual(expected, digest);
      },
    }),
  );
  await new Promise<void>((resolve, reject) => server.on('error', reject).listen(port, '127.0.0.1', resolve));
  const address = server.address();
  const taken = typeof address === 'object' && address ? address.port : 0;
  const stop = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  return { url: `http://127.0.0.1:${taken}`, port: taken, pid: process.pid, errorLog: '', stop };
}
