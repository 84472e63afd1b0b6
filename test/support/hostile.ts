// Hostile requests, made systematically: every bad name in every encoding in every place, and job
// ids, users, methods and lengths that try to leave their directory or their line. Data only;
// traversal.test.ts checks the results.
import { encodeEverything } from './arbitraries.ts';

export interface HostileRequest {
  name: string;
  /** Which of FORMATS it affects. */
  format: number;
  /** CGI variables. */
  env: Record<string, string | undefined>;
}

/** What uploads are named after when these requests are sent. */
export const FORMATS = [
  '%cid_%Y%m%d%H%M%S_%pid_%cmd',
  '%cid/%cmd',
  '%jid',
  '.%jid',
  '%jid%jid',
  '%cid/%jid/b',
  '%cmd/%jid.',
];

/** The body of every PUT: three bytes of stdout, none of stderr, four of the run record. */
export const BODY = 'outenv\n';

/** A name in the directory of client1 that is a link to a secret. */
export const LINK_OUT = 'link-out.sh';

const FORGED_LINE = '2004-05-23 16:32:06 forged client1 192.168.1.120 GET client1 host.sh 0 19 0 200 -- Success';
const LINE_BREAKS = ['\n', '\r\n', '\r', '\u2028', '\x85', '\v', '%0a', '%0d%0a'];

/** Names with a special meaning for a file system, a shell, a terminal or a reader of the log. */
function badNames(secretPath: string): string[] {
  return [
    ...Array.from({ length: 9 }, (_, depth) => `${'../'.repeat(depth + 1)}secret.sh`),
    ...[
      '.',
      '..',
      './host.sh',
      'host.sh/',
      'host.sh/.',
      'host.sh/..',
      '/secret.sh',
      '....//secret.sh',
      '..;/secret.sh',
    ],
    ...['..\\secret.sh', '..\\..\\secret.sh', 'C:\\secret.sh', '\\\\host\\secret.sh', '~/secret.sh', '~root'],
    ...[secretPath, `//${secretPath}`, `file://${secretPath}`, '/etc/passwd', '/proc/self/environ', '/dev/stdin'],
    ...['client1/../client2/secret.sh', 'commands/../../client2/secret.sh', '../client2/secret.sh', '*/secret.sh'],
    ...[
      'host.sh\0',
      'host.sh\0.txt',
      '../secret.sh\0',
      '\0',
      `host.sh\n${FORGED_LINE}`,
      'host.sh\r\nX-Forged: 1',
      '\n',
    ],
    ...[
      'host.sh ',
      ' host.sh',
      '\thost.sh',
      '$(id)',
      '`id`',
      ';id',
      '|id',
      '&&id',
      '%s%n',
      '*',
      '?',
      '{a,b}',
      '"',
      "'",
    ],
    ...['h\u00f6st.sh', '\u202ehs.tsoh', '\uff48ost.sh', '\u{1f600}', '\x7f', '\x1b[2J', '\x85', 'host.sh\u0301'],
    ...[
      LINK_OUT,
      'commands',
      '',
      '-',
      '--',
      '-rf',
      '%',
      '%%',
      '%2',
      '&',
      '=',
      '#',
      '+',
      'host.sh&FILENAME=secret.sh',
      'host.sh:stream',
      '...',
    ],
    ...['x'.repeat(256), 'x'.repeat(1024), 'x'.repeat(1025), 'x'.repeat(20_000), '../'.repeat(1000), '.'.repeat(1025)],
  ];
}

function replaceSeparators(dot: string, slash: string): (text: string) => string {
  return (text) => text.replaceAll('.', dot).replaceAll('/', slash);
}

const ENCODINGS: Record<string, (text: string) => string> = {
  plain: (text) => text,
  'every byte': encodeEverything,
  'every byte, upper case': (text) => encodeEverything(text).toUpperCase(),
  'separators only': replaceSeparators('%2e', '%2f'),
  'slashes only': replaceSeparators('.', '%2F'),
  twice: (text) => encodeEverything(text).replaceAll('%', '%25'),
  'three times': (text) => encodeEverything(text).replaceAll('%', '%2525'),
  'overlong, two bytes': replaceSeparators('%c0%ae', '%c0%af'),
  'overlong, three bytes': replaceSeparators('%e0%80%ae', '%e0%80%af'),
  'overlong, raw': replaceSeparators('\xc0\xae', '\xc0\xaf'),
  'full width': replaceSeparators('\uff0e', '\u2215'),
  'of IIS': replaceSeparators('%u002e', '%u2215'),
  'cut short': (text) => `${text}%2`,
};

function badJobIds(secretPath: string): string[] {
  return [
    ...['.', '..', '...', '../x', '..\\x', '../../../../x', '../'.repeat(85), '/', '/'.repeat(255), '/etc/passwd'],
    ...[secretPath, '%2e%2e%2f', '..%2fx', '%252e', '%c0%ae', 'a/../../b', './a', 'a/', '~', '~root', '-rf', 'a\0b'],
    ...[
      '$(id)',
      '`id`',
      ';id',
      '|id',
      '&',
      '<a',
      '>a',
      '*',
      '?',
      '{a,b}',
      '"',
      "'",
      '#',
      '!',
      '%',
      '%%',
      '%cid',
      '%s%n',
    ],
    ...[
      'a\r\nX-Forged: 1',
      `a\n${FORGED_LINE}`,
      'a b',
      ' ',
      '',
      '\t',
      '\x7f',
      '\u00e9',
      '\u2028',
      '\u{1f600}',
      '-',
      '--',
    ],
    ...['x'.repeat(245), 'x'.repeat(255), 'x'.repeat(256), 'x'.repeat(10_000), '.'.repeat(255), 'a, b'],
  ];
}

const queryOf = (clientId: string, fileName: string): string =>
  `VERSION=webjob+1.4.0&SYSTEM=any&CLIENTID=${clientId}&FILENAME=${fileName}`;

const LENGTHS = '&RUNTYPE=snapshot&STDOUT_LENGTH=3&STDERR_LENGTH=0&STDENV_LENGTH=4';

function request(name: string, env: HostileRequest['env'], format = 0): HostileRequest {
  const isPut = env.REQUEST_METHOD === 'PUT';
  const usual = {
    GATEWAY_INTERFACE: 'CGI/1.1',
    SERVER_PROTOCOL: 'HTTP/1.1',
    SERVER_SOFTWARE: 'Bare/1.0',
    REQUEST_METHOD: 'GET',
    CONTENT_LENGTH: isPut ? String(BODY.length) : '0',
    REMOTE_ADDR: '127.0.0.1',
    REMOTE_USER: 'client1',
  };
  return { name, format, env: { ...usual, ...env } };
}

/** All of them; `secretPath` is the absolute path of a file that no client may get. */
export function makeHostileRequests(secretPath: string): HostileRequest[] {
  return [...hostileQueries(secretPath), ...hostileJobIds(secretPath), ...misshapenQueries(), ...hostileVariables()];
}

function hostileQueries(secretPath: string): HostileRequest[] {
  return badNames(secretPath).flatMap((bad, number) =>
    Object.entries(ENCODINGS).flatMap(([encoding, encode]) =>
      [queryOf(encode(bad), encode('host.sh')), queryOf('client1', encode(bad))].flatMap((query, place) => {
        const name = `name ${number} encoded ${encoding} as ${place === 0 ? 'CLIENTID' : 'FILENAME'}`;
        return [
          request(`GET, ${name}`, { QUERY_STRING: query }),
          request(`PUT, ${name}`, { REQUEST_METHOD: 'PUT', QUERY_STRING: query + LENGTHS }, number % 2),
        ];
      }),
    ),
  );
}

function hostileJobIds(secretPath: string): HostileRequest[] {
  const query = queryOf('client1', 'host.sh') + LENGTHS;
  return badJobIds(secretPath).flatMap((id, number) =>
    FORMATS.map((format, index) =>
      request(`job id ${number} as ${format}`, { REQUEST_METHOD: 'PUT', QUERY_STRING: query, HTTP_JOB_ID: id }, index),
    ),
  );
}

function misshapenQueries(): HostileRequest[] {
  const good = queryOf('client1', 'host.sh');
  const queries = [
    ...['', '&', '=', '%', '..', '../secret.sh', '%2e%2e/secret.sh', '-e', '-e+1', '\0', 'a+b', `${good}&`, `&${good}`],
    ...[`${good}&FILENAME=../secret.sh`, `FILENAME=../secret.sh&${good}`, good.toLowerCase(), good.replace('&', ';')],
    ...[good.replace('CLIENTID', 'CLIENTID%00'), encodeEverything(good), good.replace('any', '../../secret.sh')],
    ...[good.replace('any', 'a%26CLIENTID%3d..%26FILENAME%3dsecret.sh'), good.repeat(50), '&'.repeat(30_000)],
    ...LINE_BREAKS.flatMap((end) => [`${good}${end}`, `${good}${end}${FORGED_LINE}`, `${end}${good}`]),
  ];
  return queries.flatMap((query, number) => [
    request(`GET, query ${number}`, { QUERY_STRING: query }),
    request(`PUT, query ${number}`, { REQUEST_METHOD: 'PUT', QUERY_STRING: query }),
    request(`PUT, query ${number} with lengths`, { REQUEST_METHOD: 'PUT', QUERY_STRING: query + LENGTHS }),
  ]);
}

/** Passed on by a web server unchanged. */
function hostileVariables(): HostileRequest[] {
  const values = [
    ...LINE_BREAKS.map((end) => `x${end}${FORGED_LINE}`),
    ...['', '-', '--', 'a b', ' ', '%', '../x', '\0', '\x1b[2J', '\u00e9', '\u202e', 'x'.repeat(5000), 'get', 'POST'],
  ];
  const lengths = ['-1', '1e3', '0x7', '7 ', '7,7', '9'.repeat(20), '9'.repeat(21), '', 'Infinity'];
  const query = queryOf('client1', 'host.sh');
  return [
    ...['REQUEST_METHOD', 'REMOTE_USER', 'REMOTE_ADDR', 'HTTP_JOB_ID', 'SERVER_PROTOCOL'].flatMap((key) =>
      values.map((value, number) => request(`${key} ${number}`, { QUERY_STRING: query, [key]: value })),
    ),
    ...lengths.flatMap((length) => [
      request(`GET, length ${length}`, { QUERY_STRING: query, CONTENT_LENGTH: length }),
      request(`PUT, length ${length}`, {
        REQUEST_METHOD: 'PUT',
        QUERY_STRING: query + LENGTHS,
        CONTENT_LENGTH: length,
      }),
    ]),
  ];
}
