// Every raw vector against the persistent worker, behind httpd in both configurations. httpd writes
// the header itself: its own Server, Date and Connection, and headers in another order. Everything
// else is byte for byte as in the vector.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { obtainFcgid } from '../../scripts/httpd-package.ts';
import { startWay, WAYS, type Way } from '../../scripts/resident.ts';
import { addUser, makeSite } from '../../scripts/site.ts';
import { sendRaw, type Target, watchForScript } from '../support/target.ts';
import { runVector } from '../support/vector-run.ts';
import { readVectors, type Vector } from '../support/vectors.ts';

/** What a vector says of a persistent worker. */
function adapt(vector: Vector, way: Way): Vector {
  const adapted = { ...vector, response: orderHead(vector.response, '\\r\\n') };
  // httpd leaves a Content-Length of 0 out of its answer to HEAD.
  if (vector.request.toString('latin1').startsWith('HEAD '))
    adapted.response = adapted.response.replace(/Content-Length: 0\\r\\n/, '');
  if (goesToCgi(vector)) return adapted;
  // Both modules pass on the number without leading zeros.
  adapted.log = vector.log.map((line) => line.replace(/ 0+(\d+)(?= \d+ \{seconds\} )/, ' $1'));
  if (way === 'mod_proxy_fcgi') return adapted;
  // mod_fcgid reads a body to its end before it asks for a process; for one that breaks off it asks
  // for none.
  if (vector.httpdAnswers?.script === 'after') adapted.httpdAnswers = { status: 500, script: 'before' };
  return adapted;
}

/** As in the snippets: a large request, or one without a length, goes to a CGI process. */
function goesToCgi({ request }: Vector): boolean {
  return !/\r\nContent-Length: *\d{1,7} *\r\n/i.test(request.toString('latin1'));
}

/**
 * How long httpd may take to pass the header of a request that breaks off to the existing process.
 */
const FORWARD_MS = 300;

const OPEN = `
KeepAlive Off
ScriptAlias /open/ "\${WEBJOB_CGI_DIRECTORY}/"
<Location "/open/">
  Require all granted
</Location>`;

for (const way of WAYS) {
  const isHere = way !== 'mod_fcgid' || obtainFcgid() !== undefined;
  describe(`raw vectors against ${way}`, { skip: !isHere && 'no mod_fcgid on this machine' }, () => {
    let target: Target;
    before(async () => {
      target = await startTarget(way);
    });
    after(() => target?.close());
    for (const vector of readVectors()) {
      if (vector.only?.kind === 'bare') continue;
      it(`${vector.place} ${vector.name}`, () => runVector(target, adapt(vector, way)));
    }
  });
}

async function startTarget(way: Way): Promise<Target> {
  const site = makeSite({ resident: true });
  addUser(site, 'client2', 'bar');
  const { server, close } = await startWay(way, site, { after: OPEN });
  return {
    kind: 'httpd',
    site,
    ask: async (request, vector) => {
      const wait = vector && goesToCgi(vector) ? watchForScript(site) : () => sleep(FORWARD_MS);
      return orderHead(await sendRaw(server.port, request, wait), '\r\n');
    },
    close: async () => {
      await close();
      site.remove();
    },
  };
}

/** The header in one order, without what httpd adds. */
function orderHead(response: string, lineEnd: string): string {
  const end = response.indexOf(lineEnd + lineEnd);
  if (end < 0) return response;
  const [first = '', ...headers] = response.slice(0, end).split(lineEnd);
  const kept = headers.filter((line) => !/^(?:Date|Connection): /.test(line));
  assert.equal(new Set(kept.map((line) => line.replace(/:.*/, ''))).size, kept.length, 'no header comes twice');
  return [first, ...kept.sort(), '', response.slice(end + 2 * lineEnd.length)].join(lineEnd);
}
