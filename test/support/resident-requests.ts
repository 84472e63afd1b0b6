// Requests of WebJob clients as httpd passes them to a persistent worker.
import type { Site } from '../../scripts/site.ts';
import { askFastCgi, type FastCgiAnswer, type Place } from './fastcgi-client.ts';

export type Variables = Record<string, string>;

const QUERY = 'VERSION=webjob+1.4.0&SYSTEM=Linux&CLIENTID=client1';

/** A GET of a command by client1. */
export function getVariables(site: Site, command = 'host.sh'): Variables {
  return {
    GATEWAY_INTERFACE: 'CGI/1.1',
    SERVER_PROTOCOL: 'HTTP/1.1',
    SERVER_SOFTWARE: 'Apache',
    REQUEST_METHOD: 'GET',
    WEBJOB_PROPERTIES_FILE: site.propertiesFile,
    REMOTE_ADDR: '127.0.0.1',
    REMOTE_USER: 'client1',
    QUERY_STRING: `${QUERY}&FILENAME=${command}`,
    CONTENT_LENGTH: '0',
  };
}

/** A PUT of `bytes` of stdout. */
export function putVariables(site: Site, bytes: number, jobId?: string, command = 'host.sh'): Variables {
  const lengths = `STDOUT_LENGTH=${bytes}&STDERR_LENGTH=0&STDENV_LENGTH=0`;
  return {
    ...getVariables(site, command),
    REQUEST_METHOD: 'PUT',
    CONTENT_LENGTH: String(bytes),
    ...(jobId !== undefined && { HTTP_JOB_ID: jobId }),
    QUERY_STRING: `${QUERY}&FILENAME=${command}&RUNTYPE=snapshot&${lengths}`,
  };
}

export const get = (place: Place, site: Site, command?: string): Promise<FastCgiAnswer> =>
  askFastCgi(place, getVariables(site, command));

export const put = (place: Place, site: Site, body: Buffer, jobId?: string): Promise<FastCgiAnswer> =>
  askFastCgi(place, putVariables(site, body.length, jobId), body);
