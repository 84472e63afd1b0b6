// docs/interop.md: its tables have the rows and columns that npm run interop makes, and the
// inexpensive cells are tested here.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { CLIENTS, HEADING, measure, PROCESS_MODELS, PROOFS } from '../support/interop.ts';
import { FRONT_HEADING, FRONTS, measureFronts } from '../support/interop-fronts.ts';
import { makeCertificates } from '../support/secure-site.ts';

const PAGE = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'interop.md'), 'utf8');
/** Clients that cost little, and are available wherever the tests run. */
const CHEAP = CLIENTS.filter(({ name }) => /^(?:as in C|curl|Python)/.test(name));
const certificates = makeCertificates();
after(() => certificates.remove());

/** The cells of the table in a block, with its heading. */
function readTable(name: string): string[][] {
  const block = new RegExp(`<!-- ${name} -->\n(.*?)<!-- end -->`, 's').exec(PAGE)?.[1] ?? '';
  return block
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
}

describe('the tables of docs/interop.md', () => {
  it('have every client, process model and authentication, and no other', () => {
    const [heading, ...rows] = readTable('clients');
    assert.deepEqual(heading, HEADING);
    assert.deepEqual(
      rows.map(([model, proof]) => [model, proof]),
      PROCESS_MODELS.flatMap(({ name }) => PROOFS.map((proof) => [name, proof])),
    );
    for (const row of rows) assert.equal(row.length, HEADING.length);
  });

  it('have every front, and no other', () => {
    const [heading, ...rows] = readTable('fronts');
    assert.deepEqual(heading, FRONT_HEADING);
    assert.deepEqual(
      rows.map(([front]) => front),
      FRONTS.map(({ name }) => name),
    );
  });

  it('name the versions that they were made with', () => {
    for (const { name } of CLIENTS) assert.match(PAGE, new RegExp(`^- ${name}: .+$`, 'm'));
  });
});

describe('a cell of the tables', () => {
  it('is what the page says, for one process model, each authentication and the quick clients', async () => {
    const model = PROCESS_MODELS.filter(({ way }) => way === 'mod_proxy_fcgi');
    const [heading = [], ...rows] = readTable('clients');
    const columns = CHEAP.map(({ name }) => heading.indexOf(name));
    const said = rows
      .filter(([name]) => name === model[0]?.name)
      .map((row) => [...row.slice(0, 2), ...columns.map((column) => row[column])]);
    const found = await measure(certificates, model, CHEAP);
    // A client may be missing here that was available where the page was made.
    const missing = found.map((row, at) =>
      row.map((cell, column) => (cell === 'not here' ? said[at]?.[column] : cell)),
    );
    assert.deepEqual(missing, said);
    assert.ok(found.flat().filter((cell) => cell === 'yes').length >= 2 * PROOFS.length);
  });

  it('is what the page says, for the fronts that no other test covers', async () => {
    const own = FRONTS.filter(({ tests }) => tests.includes('interop.test.ts'));
    const said = readTable('fronts').filter(([name]) => own.some((front) => front.name === name));
    assert.deepEqual(await measureFronts(certificates, own), said);
    assert.equal(said.length, 2);
  });

  it('is not yes for a client that stores or receives other bytes, or is refused', async () => {
    const strict = CLIENTS[0];
    assert.ok(strict);
    type Asked = Awaited<ReturnType<typeof strict.ask>>;
    const lie = (change: (outcome: Asked, incoming: string) => Partial<Asked>): typeof strict => ({
      ...strict,
      ask: async (station, folder) => {
        const outcome = await strict.ask(station, folder);
        return { ...outcome, ...change(outcome, station.site.incoming) };
      },
    });
    const change = (incoming: string, mend: (path: string) => void): object => {
      for (const name of readdirSync(incoming)) if (name.endsWith('.out')) mend(join(incoming, name));
      return {};
    };
    const liars = [
      lie(() => ({ program: Buffer.from('other') })),
      lie(() => ({ get: '404 Not Found' })),
      lie(() => ({ put: '507 Insufficient Storage' })),
      lie((_outcome, incoming) => change(incoming, (path) => rmSync(path))),
      lie((_outcome, incoming) => change(incoming, (path) => writeFileSync(path, 'other'))),
    ];
    const model = PROCESS_MODELS.filter(({ way }) => way === 'mod_proxy_fcgi');
    const [row = []] = await measure(certificates, model, liars, ['password over HTTP']);
    assert.deepEqual(row.slice(2), [
      'GET: 5 other bytes',
      'GET: 404 Not Found',
      'PUT: 507 Insufficient Storage',
      'PUT: 3 files',
      'PUT: 5 other bytes',
    ]);
  });
});
