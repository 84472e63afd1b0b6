// Sends a GET with a user's password and returns its status.
import { request } from 'node:http';

/** The status of a GET of host.sh by a client; without a password no credentials are sent. */
export function askAs(url: string, client: string, password?: string): Promise<number> {
  const query = `VERSION=webjob+1.4.0&SYSTEM=Linux&CLIENTID=${client}&FILENAME=host.sh`;
  const headers = password === undefined ? {} : { Authorization: `Basic ${btoa(`${client}:${password}`)}` };
  return new Promise((resolve, reject) => {
    request(
      `${url}/webjob/nph-webjob.cgi?${query}`,
      { agent: false, headers: { ...headers, 'Content-Length': 0 } },
      (response) => response.resume().on('end', () => resolve(response.statusCode ?? 0)),
    )
      .on('error', reject)
      .end();
  });
}
