// Clients and proxies that reuse connections: a GET and then a PUT in one session, repeatedly. They
// succeed because every answer of the nph script says that its connection ends (RFC 9112, section
// 9.3).
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { Agent, type IncomingMessage, request } from 'node:http';
import { after, before, describe, it } from 'node:test';
import { formatGetQuery, formatPutQuery } from 'webjob-protocol';
import { obtainFcgid } from '../../scripts/httpd-package.ts';
import { startWay, WAYS } from '../../scripts/resident.ts';
import { configure, makeSite, type Site } from '../../scripts/site.ts';
import { collect } from '../support/bare.ts';
import { isNginxMissing, startNginx } from '../support/nginx.ts';
import { startServer } from '../support/target.ts';
import { part } from '../support/thorough.ts';

const ROUNDS = 4;
const QUERY = { version: 'webjob 1.4.0', system: 'any', clientId: 'client1', fileName: 'host.sh' };
const PATH = '/webjob/nph-webjob.cgi';
const GET = `${PATH}?${formatGetQuery(QUERY)}`;
const PUT = `${PATH}?${formatPutQuery({ ...QUERY, runType: 'snapshot', outLength: 3, errLength: 0, envLength: 0 })}`;
const AUTHORIZATION = `Basic ${btoa('client1:foo')}`;

/**
 * Each gets host, port, the two paths, the credentials and the number of rounds, and prints the two
 * statuses of every round.
 */
const CLIENTS = {
  python3: `
import http.client, sys
host, port, get, put, authorization, rounds = sys.argv[1:]
connection = http.client.HTTPConnection(host, int(port))
for round in range(int(rounds)):
    for method, path, body in (("GET", get, b""), ("PUT", put, b"abc")):
        headers = {"Authorization": authorization, "Content-Length": str(len(body)), "Job-Id": "python_%d" % round}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        print(answer.status)
`,
  perl: `
use HTTP::Tiny;
my ($host, $port, $get, $put, $authorization, $rounds) = @ARGV;
my $http = HTTP::Tiny->new(keep_alive => 1);
for my $round (0 .. $rounds - 1) {
  for (["GET", $get, ""], ["PUT", $put, "abc"]) {
    my ($method, $path, $body) = @$_;
    my %headers = (Authorization => $authorization, "Content-Length" => length $body, "Job-Id" => "perl_$round");
    my $answer = $http->request($method, "http://$host:$port$path", { headers => \\%headers, content => $body });
    print $answer->{status}, "\\n";
  }
}
`,
} as const;

async function runClient(program: keyof typeof CLIENTS, port: number): Promise<string[]> {
  const args = [program === 'perl' ? '-e' : '-c', CLIENTS[program], '127.0.0.1', String(port), GET, PUT, AUTHORIZATION];
  const { stdout, stderr } = await collect(
    spawn(program, [...args, String(ROUNDS)], { stdio: ['ignore', 'pipe', 'pipe'] }),
    60,
  );
  return [...stdout.toString().trimEnd().split('\n'), ...(stderr ? [stderr] : [])];
}

/** GET and PUT in turn through Node's own agent, `ROUNDS` times. */
async function askByAgent(port: number, name: string): Promise<IncomingMessage[]> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const answers: IncomingMessage[] = [];
  try {
    for (let round = 0; round < ROUNDS; round += 1) {
      answers.push(await ask({ agent, port, method: 'GET', path: GET, jobId: '', body: '' }));
      answers.push(await ask({ agent, port, method: 'PUT', path: PUT, jobId: `${name}_${round}`, body: 'abc' }));
    }
  } finally {
    agent.destroy();
  }
  return answers;
}

interface Asked {
  agent: Agent;
  port: number;
  method: string;
  path: string;
  jobId: string;
  body: string;
}

function ask({ agent, port, method, path, jobId, body }: Asked): Promise<IncomingMessage> {
  const headers = { Authorization: AUTHORIZATION, 'Content-Length': body.length, ...(jobId && { 'Job-Id': jobId }) };
  return new Promise((resolve, reject) => {
    request({ agent, host: '127.0.0.1', port, method, path, headers }, (answer) => {
      answer
        .resume()
        .on('end', () => resolve(answer))
        .on('error', reject);
    })
      .on('error', reject)
      .end(body);
  });
}

const GOOD = Array.from({ length: 2 * ROUNDS }, () => '200');
const isMissing = (program: string): string | false =>
  spawnSync(program, ['--version']).error ? `no ${program} on this machine` : false;

for (const mpm of part(['event', 'prefork'] as const, 1)) {
  describe(`a session of GET and PUT with ${mpm}`, async () => {
    const { site, server, close } = await startServer(mpm);
    after(close);
    before(() => configure(site, { PutNameFormat: '%cid_%jid' }));

    for (const program of ['python3', 'perl'] as const)
      it(`succeeds with ${program}`, { skip: isMissing(program) }, async () => {
        assert.deepEqual(await runClient(program, server.port), GOOD);
      });

    it("succeeds with Node's agent, which is told when each connection ends", async () => {
      const answers = await askByAgent(server.port, 'agent');
      assert.deepEqual(
        answers.map(({ statusCode }) => String(statusCode)),
        GOOD,
      );
      for (const { headers } of answers) assert.equal(headers.connection, 'close');
    });

    it('succeeds through nginx that keeps its connections to httpd', { skip: isNginxMissing() }, async () => {
      const proxy = await startNginx(server.port);
      try {
        const answers = await askByAgent(proxy.port, 'nginx');
        assert.deepEqual(
          answers.map(({ statusCode }) => String(statusCode)),
          GOOD,
        );
      } finally {
        await proxy.close();
      }
    });

    it('is told so in a refusal, too', async () => {
      const agent = new Agent({ keepAlive: true });
      const common = { agent, port: server.port, jobId: '', body: '' };
      for (const [status, method, path] of [
        [404, 'GET', GET.replace('host.sh', 'absent')],
        [456, 'PUT', PUT],
        [450, 'PUT', PATH],
      ] as const) {
        const { statusCode, headers } = await ask({ ...common, method, path });
        assert.deepEqual([statusCode, headers.connection], [status, 'close']);
      }
      agent.destroy();
    });
  });
}

for (const way of WAYS) {
  const isHere = way !== 'mod_fcgid' || obtainFcgid() !== undefined;
  describe(`a session of GET and PUT with ${way}`, { skip: !isHere && 'no mod_fcgid on this machine' }, async () => {
    if (!isHere) return;
    const site: Site = makeSite({ resident: true, settings: { PutNameFormat: '%cid_%jid' } });
    const { server, close } = await startWay(way, site);
    after(async () => {
      await close();
      site.remove();
    });

    it('keeps its connection: httpd makes the header, and the script does not end it', async () => {
      const answers = await askByAgent(server.port, 'kept');
      assert.deepEqual(
        answers.map(({ statusCode }) => String(statusCode)),
        GOOD,
      );
      for (const { headers } of answers) assert.equal(headers.connection?.toLowerCase(), 'keep-alive');
    });
  });
}
