// A site under httpd with one client of its own, and what that client's uploads leave in the
// locker.
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type HttpdOptions, type Server, startHttpd } from '../../scripts/httpd.ts';
import { startWay } from '../../scripts/resident.ts';
import { addCommand, makeSite, type Site } from '../../scripts/site.ts';
import { type Client, makeClient } from './client-job.ts';

export interface Upload {
  out: Buffer;
  err: Buffer;
  env: string;
  rdy: string;
}

export interface ClientSite {
  site: Site;
  server: Server;
  client: Client;
  /** Writes webjob.conf for client1 at this site; an empty value removes a setting's line. */
  configure(more?: Record<string, string>): void;
  add(name: string, program: string | Buffer): void;
  /** Returns and removes the only upload. Throws Error unless there is exactly one. */
  takeUpload(): Upload;
  close(): Promise<void>;
}

/**
 * Served by a persistent worker, which saves the start of Node for each request, or by CGI if the
 * options name an MPM.
 */
export async function startClientSite(options: Partial<HttpdOptions> = {}): Promise<ClientSite> {
  const site = makeSite({ resident: options.mpm === undefined });
  const server = await startServer(site, options);
  const client = makeClient();
  const url = `${server.url}/webjob/nph-webjob.cgi`;
  return {
    site,
    server,
    client,
    configure: (more = {}) => {
      const controls = {
        URLGetURL: url,
        URLPutURL: url,
        URLAuthType: 'basic',
        URLUsername: 'client1',
        URLPassword: 'foo',
        ...more,
      };
      client.configure(Object.fromEntries(Object.entries(controls).filter(([, value]) => value !== '')));
    },
    add: (name, program) => addCommand(site, 'client1', name, program),
    takeUpload: () => takeUpload(site, server),
    close: async () => {
      await server.stop();
      client.remove();
      site.remove();
    },
  };
}

async function startServer(site: Site, options: Partial<HttpdOptions>): Promise<Server> {
  if (options.mpm) return await startHttpd({ site, mpm: options.mpm, ...options });
  const { server, close } = await startWay('mod_proxy_fcgi', site, options);
  return { ...server, stop: close };
}

function takeUpload({ base, incoming }: Site, { errorLog }: Server): Upload {
  const names = readdirSync(incoming).sort();
  const extensions = names.map((name) => name.slice(-4));
  if (extensions.join() !== '.env,.err,.out,.rdy') {
    const said = [join(base, 'logfiles', 'nph-webjob.log'), errorLog].map((path) =>
      readFileSync(path, 'utf8').slice(-1500),
    );
    throw new Error([`not one upload: ${names.join(' ')}`, ...said].join('\n'));
  }
  const [env = '', err = '', out = '', rdy = ''] = names.map((name) => join(incoming, name));
  const text = (path: string): string => readFileSync(path, 'utf8');
  const upload = { out: readFileSync(out), err: readFileSync(err), env: text(env), rdy: text(rdy) };
  for (const path of [env, err, out, rdy]) rmSync(path);
  return upload;
}
