// Attribution of an upload by its name, when the job id is next to other values: only the id itself
// tells where each of them ends.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { after, describe, it } from 'node:test';
import fc from 'fast-check';
import { encodeField, parseLogLine } from 'webjob-protocol';
import { createSequence } from '../../cgi/sequence.ts';
import { readSettings } from '../../cgi/settings.ts';
import { encodeValue, expandTokens } from '../../cgi/tokens.ts';
import { compileNames, makeGuesser } from '../../ledger/names.ts';
import { serversOf } from '../../ledger/site.ts';
import { makeLockerSite, makeRecord } from '../support/locker-site.ts';

const FORMATS = [
  '%cid_%jid_%cmd',
  '%jid_%cid/%cmd',
  '%cmd_%jid_%cid',
  '%cid/%jid_%cmd',
  '%cid%jid/%cmd',
  '%jid-%cid/%cmd',
];
const its = makeLockerSite({ UseGMT: 'Y', PutNameFormat: '%cid_%jid_%cmd', OverwriteExistingFiles: 'Y' });
after(its.close);

describe('a name that contains a job id', () => {
  const { settings } = readSettings(its.site.propertiesFile);
  const site = { propertiesFile: undefined, settings, servers: serversOf(settings), label: undefined };
  const of = (putNameFormat: string) => compileNames({ ...site, settings: { ...site.settings, putNameFormat } });
  const client = fc.stringMatching(/^[A-Za-z0-9_-]{1,12}$/);
  const command = fc.stringMatching(/^[A-Za-z0-9+.:_-]{1,12}$/).filter((text) => !/^\.+$/.test(text));
  const issued = fc
    .tuple(
      fc.constantFrom('server_1', 'a', '1_2'),
      fc.integer({ min: 1e9, max: 2e9 }),
      fc.integer({ min: 10000, max: 9e9 }),
    )
    .map((parts) => parts.join('_'));
  const invented = fc.stringMatching(/^[\x21-\x7e]{1,30}$/).filter((text) => !/^\.+$/.test(text));
  const facts = { pid: 1, serverId: 'server_1', at: new Date(0), useGmt: true };

  for (const format of FORMATS)
    it(`yields client and command with ${format}`, () => {
      const parse = of(format);
      fc.assert(
        fc.property(client, command, fc.oneof(issued, invented), (clientId, fileName, jobId) => {
          const name = expandTokens(format, { ...facts, clientId, fileName, jobId });
          const found = parse(name, encodeField(jobId));
          // The same name may belong to another client and command, and then nothing decides: the
          // values must be a pair that makes this name.
          assert.ok(found?.clientId !== undefined && found.command !== undefined, name);
          const again = { ...facts, jobId, clientId: found.clientId, fileName: found.command };
          assert.equal(expandTokens(format, again), name);
          if (name.split(encodeValue(jobId)).length === 2)
            assert.deepEqual({ ...found }, { clientId, command: fileName });
        }),
      );
    });

  it('may have any number that a persistent worker gives a request', () => {
    const putNameFormat = '%cid_%Y%m%d%H%M%S_%pid_%cmd';
    const startedAt = Date.UTC(2026, 10, 30, 12, 0, 0, 999);
    const next = createSequence(2 ** 22 - 1, startedAt);
    for (const pid of [next(startedAt / 1000), next(Math.floor(startedAt / 1000)), next(2e9), 7]) {
      const at = new Date(startedAt);
      const given = { ...facts, at, pid, clientId: 'client1', fileName: 'host.sh', jobId: 'NA' };
      const name = expandTokens(putNameFormat, given);
      assert.deepEqual({ ...of(putNameFormat)(name) }, { clientId: 'client1', command: 'host.sh' }, name);
      const guess = makeGuesser({ ...site, settings: { ...site.settings, putNameFormat } });
      const line = `2026-11-30 12:00:00 NA client1 127.0.0.1 PUT client1 host.sh 0 0 0 456 -- Length Mismatch`;
      assert.ok(
        [...guess(parseLogLine(line))].some(({ fits }) => fits(name)),
        name,
      );
    }
  });

  it('belongs to a server of the site when nothing else decides', () => {
    const parse = of('%cid_%jid_%cmd');
    const expected = { clientId: 'my_client', command: 'host_a.sh' };
    assert.deepEqual(parse('my_client_server_1_1795976599_27405_host_a.sh'), expected);
    assert.deepEqual(parse('my_client_server_1_1795976599_27405_host_a.sh~2'), expected);
    assert.deepEqual(parse('my_client_NA_host_a.sh'), expected);
    assert.equal(parse('my_client_other_1795976599_27405_host.sh'), undefined);
  });
});

describe('an upload named by client, job id and command', () => {
  it('is the job of the client that sent it, with a store and without', async () => {
    // A run record may claim anything.
    const put = async (jobId: string, out: string): Promise<void> => {
      const env = makeRecord({ ClientId: 'client9', GetRequest: 'ps.sh', Command: 'ps.sh', Jid: jobId });
      assert.equal((await its.put({ clientId: 'client1', fileName: 'host.sh', jobId, out, err: '', env })).status, 200);
    };
    const { jobId } = await its.get('client1', 'host.sh');
    for (const out of ['one', 'two']) await put(jobId, out);
    await put('of_my-own', 'three');
    const states = async (): Promise<unknown[]> => {
      const jobs = await its.readJson<Record<string, unknown>>('jobs');
      return jobs.map(({ jobId: id, client, command, state }) => [id, client, command, state].join(' ')).sort();
    };
    const expected = (state: string): string[] => ['of_my-own', jobId].map((id) => `${id} client1 host.sh ${state}`);
    assert.deepEqual(await states(), expected('done'));
    assert.equal((await its.webjobctl('index')).exitCode, 0);
    assert.deepEqual(await states(), expected('done'), 'with a store');
    // When the log does not tell the client, the name does.
    writeFileSync(its.site.logFile, '');
    assert.deepEqual(await states(), expected('orphan'), 'without a log');
  });
});
