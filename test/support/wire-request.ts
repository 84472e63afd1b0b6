// Headers of requests as the clients of the tests' sites send them.
export interface Ask {
  clientId?: string;
  fileName?: string;
  version?: string;
  system?: string;
  user?: string;
  /** `/open/` requires no password. */
  folder?: '/webjob/' | '/open/';
  jobId?: string;
  /** Announces no body, as curl does for a GET. */
  hasNoLength?: boolean;
  /** Further lines of the header. */
  headers?: string[];
}

export interface Put extends Ask {
  runType?: string;
  out?: string;
  err?: string;
  env?: string;
}

/** The passwords of the users. */
const PASSWORDS: Record<string, string> = { client1: 'foo', client2: 'bar' };

/** The header of a request as a C client sends it. */
export function formatHead(method: 'GET' | 'PUT', ask: Put): string {
  const { clientId = 'client1', fileName = 'host.sh', version = 'webjob+1.4.0', system = 'any' } = ask;
  const { user = 'client1', folder = '/webjob/', runType = 'snapshot', jobId, headers = [] } = ask;
  const { out = '', err = '', env = '' } = method === 'PUT' ? ask : {};
  const query = `VERSION=${version}&SYSTEM=${system}&CLIENTID=${clientId}&FILENAME=${fileName}`;
  const lengths = `&RUNTYPE=${runType}&STDOUT_LENGTH=${out.length}&STDERR_LENGTH=${err.length}&STDENV_LENGTH=${env.length}`;
  const path = `${folder}nph-webjob.cgi?${query}${method === 'PUT' ? lengths : ''}`;
  const lines = [
    `${method} ${path} HTTP/1.1`,
    'Host: 127.0.0.1',
    ...(ask.hasNoLength ? [] : [`Content-Length: ${out.length + err.length + env.length}`]),
    ...(folder === '/open/' ? [] : [formatAuthorization(user)]),
    ...(jobId === undefined ? [] : [`Job-Id: ${jobId}`]),
    ...headers,
  ];
  return `${lines.join('\r\n')}\r\n\r\n`;
}

function formatAuthorization(user: string): string {
  return `Authorization: Basic ${Buffer.from(`${user}:${PASSWORDS[user]}`).toString('base64')}`;
}
