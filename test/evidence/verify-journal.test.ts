// webjobctl verify --journal: a client's own record of its uploads reveals those that a server
// acknowledged and then dropped or changed, even if the server's own records match.
import assert from 'node:assert/strict';
import { copyFileSync, readdirSync, readFileSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { configure } from '../../scripts/site.ts';
import { type ClientSite, startClientSite } from '../support/client-site.ts';
import { parseLines, runWebjobctl } from '../support/operator.ts';
import { plantGroup } from '../support/verify-site.ts';

let its: ClientSite;
const at = (name: string): string => join(its.client.root, name);
const custody = (): string => join(its.site.base, 'logfiles', 'nph-webjob-custody.server_1.jsonl');
/** Job ids in the order of the runs. */
const jobs: string[] = [];

interface Line {
  kind: string;
  place: string;
  detail: string;
}

async function hold(
  journal = at('journal'),
  code?: number,
): Promise<{ found: string[]; lines: Line[]; summary: object }> {
  const args = ['--json', '--config', its.site.propertiesFile, 'verify', '--journal', journal];
  const { code: ended, stdout, stderr } = await runWebjobctl(args);
  const lines = parseLines<Line>(stdout);
  const { kind: _, ...summary } = lines.pop() ?? assert.fail(stderr);
  assert.equal(ended, code ?? (lines.length > 0 ? 1 : 0), stderr);
  return { lines, summary, found: lines.map(({ kind, place }) => `${kind} ${jobs.indexOf(place)}`) };
}

const files = (index: number): string[] => {
  const rdy = readdirSync(its.site.incoming).find(
    (name) => name.endsWith('.rdy') && readFileSync(join(its.site.incoming, name), 'utf8') === `Jid=${jobs[index]}\n`,
  );
  assert.ok(rdy, `no upload of job ${index}`);
  return ['out', 'err', 'env', 'rdy'].map((stream) => join(its.site.incoming, rdy.replace(/rdy$/, stream)));
};

before(async () => {
  its = await startClientSite();
  configure(its.site, { EnableCustody: 'Y', PutNameFormat: '%cid_%jid' });
  its.add('host.sh', '#!/bin/sh\necho "out of $1"\n');
  its.configure({ JournalFile: at('journal') });
  for (let index = 0; index < 8; index++) assert.equal((await its.client.execute(['host.sh', String(index)])).code, 0);
  for (const line of readFileSync(at('journal'), 'utf8').trimEnd().split('\n')) jobs.push(JSON.parse(line).jobId);
  assert.equal(new Set(jobs).size, 8);
});
after(() => its.close());

describe('webjobctl verify --journal', () => {
  it('finds every run where it was sent', async () => {
    const { found, summary } = await hold();
    assert.deepEqual(found, []);
    assert.deepEqual(summary, { deliveries: 8, acknowledged: 8, kept: 8, removed: 0, findings: 0 });
  });

  it('names each run that the server dropped or changed, whatever its custody record says', async () => {
    copyFileSync(custody(), at('custody'));
    const [dropped, edited, forged] = [files(1), files(2), files(3)];
    for (const file of dropped) rmSync(file);
    writeFileSync(edited[0] ?? '', 'out of nothing\n');
    // The third, with a matching run record and custody record.
    for (const file of forged) rmSync(file);
    const name = (forged[0] ?? '').slice(its.site.incoming.length + 1, -4);
    const places = { incomingDirectory: its.site.incoming, logfilesDirectory: join(its.site.base, 'logfiles') };
    plantGroup({ ...places, name, jobId: jobs[3] ?? '', out: 'all is well\n', err: '' });
    // The custody record then has only the job id of the first.
    const lines = readFileSync(custody(), 'utf8').split('\n');
    writeFileSync(custody(), lines.filter((line) => !line.includes(`"jobId":"${jobs[1]}"`)).join('\n'));
    const { found, lines: said, summary } = await hold();
    assert.deepEqual(found, ['journal-missing 1', 'journal-changed 2', 'journal-changed 3']);
    assert.match(
      said[0]?.detail ?? '',
      /^client1 sent host\.sh, and the server acknowledged it with 200 at \S+Z: it is missing$/,
    );
    assert.match(said[1]?.detail ?? '', /: \.out is not what it sent$/);
    assert.match(said[2]?.detail ?? '', /: \.out and \.env are not what it sent$/);
    assert.deepEqual(summary, { deliveries: 8, acknowledged: 8, kept: 5, removed: 0, findings: 3 });
  });

  it('finds runs in archives, without a custody record, and those that were pruned on record', async () => {
    copyFileSync(at('custody'), custody());
    const past = new Date(Date.now() - 40 * 86_400_000);
    const webjobctl = async (...args: string[]): Promise<void> => {
      const { code, stderr } = await runWebjobctl(['--config', its.site.propertiesFile, ...args]);
      assert.equal(code, 0, stderr);
    };
    for (const file of files(6)) utimesSync(file, past, past);
    await webjobctl('prune', '--older-than', '30d', '--yes');
    for (const file of [...files(4), ...files(5)]) utimesSync(file, past, past);
    await webjobctl('pack', '--older-than', '30d');
    const lines = readFileSync(custody(), 'utf8').split('\n');
    writeFileSync(custody(), lines.filter((line) => !line.includes(`"jobId":"${jobs[7]}"`)).join('\n'));
    const { found, summary } = await hold();
    assert.deepEqual(found, ['journal-missing 1', 'journal-changed 2', 'journal-changed 3']);
    assert.deepEqual(summary, { deliveries: 8, acknowledged: 8, kept: 4, removed: 1, findings: 3 });
    const packed = join(its.site.base, 'packed');
    const [archive = ''] = readdirSync(packed).filter((name) => name.endsWith('.tar.gz'));
    renameSync(join(packed, archive), at(archive));
    assert.deepEqual((await hold()).found.slice(-2), ['journal-missing 4', 'journal-missing 5']);
    renameSync(at(archive), join(packed, archive));
    await webjobctl('prune', '--older-than', '30d', '--yes');
    assert.deepEqual((await hold()).summary, { deliveries: 8, acknowledged: 8, kept: 2, removed: 3, findings: 3 });
  });

  it('reports errors in a journal, and files that are not a journal', async () => {
    const text = readFileSync(at('journal'), 'utf8');
    writeFileSync(at('edited'), text.replace('"fileName":"host.sh"', '"fileName":"hurt.sh"'));
    const { lines } = await hold(at('edited'));
    assert.ok(lines.some(({ kind, place }) => kind === 'journal-broken' && place === at('edited')));
    writeFileSync(at('cut'), text.split('\n').toSpliced(3, 1).join('\n'));
    assert.ok((await hold(at('cut'))).lines.some(({ kind }) => kind === 'journal-broken'));
    for (const path of [its.site.propertiesFile, at('none'), its.client.root]) {
      const { code, stderr } = await runWebjobctl(['--config', its.site.propertiesFile, 'verify', '--journal', path]);
      assert.ok(code === 4 || (code === 1 && path === its.site.propertiesFile), stderr);
    }
    for (const more of [['--since', '1d'], ['--custody'], [jobs[0] ?? '']]) {
      const args = ['--config', its.site.propertiesFile, 'verify', '--journal', at('journal'), ...more];
      assert.equal((await runWebjobctl(args)).code, 2);
    }
  });
});
