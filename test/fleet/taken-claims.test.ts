import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type TakenClaim, TakenClaims } from 'webjob-locker';

const line = (due: number, clientId: string, position = 1, jobId = `server_1_${due}_00001`): string =>
  `${due} ${clientId} ${position} ${jobId}\n`;

function plain({ due, clientId, position, jobId }: TakenClaim): TakenClaim {
  return { due, clientId, position, jobId };
}

describe('the claims of an assignment', () => {
  it('are found by client, with all parts of the line', () => {
    const claims = new TakenClaims([line(10, 'a', 2, 'x_1_2'), '20 b 3 y_1_2']);
    assert.deepEqual(plain(claims.find('a') as TakenClaim), { due: 10, clientId: 'a', position: 2, jobId: 'x_1_2' });
    assert.deepEqual(plain(claims.find('b') as TakenClaim), { due: 20, clientId: 'b', position: 3, jobId: 'y_1_2' });
    assert.equal(claims.find('c'), undefined);
    assert.deepEqual([claims.size, claims.count], [2, 2]);
  });

  it('are the newest of each client, and of two for one due time the first', () => {
    const claims = new TakenClaims([
      line(10, 'a') + line(30, 'a', 1, 'first') + line(20, 'a'),
      line(30, 'a', 1, 'second'),
    ]);
    assert.equal(claims.find('a')?.jobId, 'first');
    assert.deepEqual([claims.size, claims.count, [...claims.all()].length], [1, 4, 4]);
  });

  it('differ for clients whose names have one hash, or one of which begins the other', () => {
    // 31 * 'A' + 'a' is 31 * 'B' + 'B'.
    const names = ['AaAa', 'AaBB', 'BBAa', 'BBBB', 'host-1', 'host-10', 'host-100', 'host'];
    const claims = new TakenClaims([names.map((name, index) => line(index + 1, name)).join('')]);
    assert.deepEqual(
      names.map((name) => claims.find(name)?.due),
      [1, 2, 3, 4, 5, 6, 7, 8],
    );
    assert.deepEqual(Array.from(claims.newest(), ({ clientId }) => clientId).sort(), [...names].sort());
    for (const other of ['', 'BBB', 'BBBBB', 'hos', 'host-1000', '10'])
      assert.equal(claims.find(other), undefined, other);
  });

  it('leave out lines that are malformed or incomplete', () => {
    const bad = [
      '',
      'x a 1 j',
      '10 a 1',
      '10 a/b 1 j',
      '10 a 1 j k',
      '1234567890123 a 1 j',
      '10 a 12345 j',
      '10  a 1 j',
    ];
    const claims = new TakenClaims([`${bad.join('\n')}\n${line(5, 'good')}10 torn 1`, '']);
    assert.deepEqual(Array.from(claims.all(), plain), [plain(claims.find('good') as TakenClaim)]);
    assert.deepEqual([claims.size, claims.count], [1, 1]);
    assert.deepEqual([new TakenClaims([]).size, new TakenClaims(['']).find('a')], [0, undefined]);
  });

  it('fill as many lines as the index has, even the shortest', () => {
    const ids = Array.from({ length: 3000 }, (_, index) => index.toString(36));
    const claims = new TakenClaims([ids.map((id) => `1 ${id} 1 x\n`).join('')]);
    assert.equal(claims.size, ids.length);
    assert.ok(ids.every((id) => claims.find(id)?.clientId === id));
  });

  it('include one that no line names, in place of an older one', () => {
    const claims = new TakenClaims([line(10, 'a') + line(10, 'b')]);
    claims.add({ due: 20, clientId: 'a', position: 7, jobId: 'j' });
    claims.add({ due: 20, clientId: 'c', position: 7, jobId: 'k' });
    assert.equal(claims.size, 3);
    assert.deepEqual(Array.from(claims.newest(), ({ clientId, due }) => `${clientId} ${due}`).sort(), [
      'a 20',
      'b 10',
      'c 20',
    ]);
    assert.equal(claims.find('a')?.position, 7);
  });
});
