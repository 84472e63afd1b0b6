// The ways to the script that configtest finds in httpd's dump of its configuration, without an
// httpd.
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, it } from 'node:test';
import type { Directive } from '../../admin/configtest/httpd.ts';
import { findWays } from '../../admin/configtest/ways.ts';

const root = mkdtempSync(join(tmpdir(), 'webjob-ways-'));
after(() => rmSync(root, { recursive: true }));
const at = (...names: string[]): string => join(root, ...names);
const SCRIPT = '#!/usr/bin/node\nprocess.env.WEBJOB_PROPERTIES_FILE\n';

function place(name: string, text = SCRIPT, mode = 0o755): void {
  mkdirSync(dirname(at(name)), { recursive: true });
  writeFileSync(at(name), text);
  chmodSync(at(name), mode);
}

/** `Listen 80`, or `VirtualHost *:80 | ScriptAlias /a/ /b/`. */
function parse(...lines: string[]): Directive[] {
  return lines.map((line, index) => {
    const parts = line.split(' | ');
    const [, name = '', value = ''] = /^(\S+)\s*(.*)$/.exec(parts.at(-1) ?? '') ?? [];
    return { name, value, sections: parts.slice(0, -1), where: `httpd.conf:${index + 1}` };
  });
}

const tell = (...lines: string[]): string[] =>
  findWays(parse(...lines))
    .ways.flatMap(({ server, path }) =>
      server.addresses.map(
        ({ host, port }) =>
          `${server.isTls ? 'https' : 'http'} ${server.serverName ?? '-'} ${host} ${port} ${decodeURI(path)}`,
      ),
    )
    .sort();

describe('the paths to the script', () => {
  place('cgi/nph-webjob.cgi');
  place('cgi/nph-webjob.cgi.bak', `${SCRIPT}// an older one\n`);
  place('cgi/.htaccess', 'Require valid-user\n', 0o644);
  place('cgi/text', SCRIPT, 0o644);
  place('cgi/other.cgi', '#!/bin/sh\n');
  place('cgi/large.cgi', `${SCRIPT}${' '.repeat(2_000_000)}`);
  mkdirSync(at('bin'));
  symlinkSync(at('cgi'), at('bin', 'folder'));
  symlinkSync(at('cgi/nph-webjob.cgi'), at('bin', 'link'));
  symlinkSync(at('bin'), at('bin', 'circle'));
  symlinkSync(at('nowhere'), at('bin', 'broken'));

  it('lead through aliases, in every virtual host, and to copies', () => {
    const found = tell(
      ...['Listen 80', 'Listen 127.0.0.2:8443 https', 'Listen [::]:90'],
      `ScriptAlias /webjob/ "${at('cgi')}/"`,
      ...['VirtualHost *:80 | ServerName http://a.example:80', 'VirtualHost _default_:8443 | SSLEngine on'],
      `VirtualHost _default_:8443 | Alias /b ${at('bin/link')}`,
    );
    const both = (start: string): string[] => [
      `${start} /webjob/nph-webjob.cgi`,
      `${start} /webjob/nph-webjob.cgi.bak`,
    ];
    assert.deepEqual(found, [
      ...both('http - ::1 90'),
      ...both('http a.example 127.0.0.1 80'),
      'https - 127.0.0.2 8443 /b',
      ...both('https - 127.0.0.2 8443'),
    ]);
  });

  it('lead through links, and through files that are served', () => {
    assert.deepEqual(tell('Listen 80', `DocumentRoot "${at('bin')}"`), [
      'http - 127.0.0.1 80 /folder/nph-webjob.cgi',
      'http - 127.0.0.1 80 /folder/nph-webjob.cgi.bak',
      'http - 127.0.0.1 80 /link',
    ]);
    const lines = ['Listen 80', `ScriptAliasMatch ^/x/(.*) ${at('cgi')}/$1`];
    assert.deepEqual(tell(...lines)[0], 'http - 127.0.0.1 80 /x/nph-webjob.cgi');
  });

  it('lead past every file to a FastCGI process', () => {
    const lines = [
      'Listen 80',
      'ProxyPass /p "unix:/run/w.sock|fcgi://localhost/"',
      'Location "/s" | SetHandler "proxy:unix:/run/w.sock|fcgi://localhost/"',
      'Directory "/x" | SetHandler "proxy:unix:/run/w.sock|fcgi://localhost/"',
      'ProxyPass /other http://192.0.2.1/',
    ];
    assert.deepEqual(tell(...lines), ['http - 127.0.0.1 80 /p', 'http - 127.0.0.1 80 /s']);
  });

  it('lead to the addresses of a virtual host, or to the server without one', () => {
    const alias = `ScriptAlias /w "${at('cgi/nph-webjob.cgi')}"`;
    assert.deepEqual(
      tell('Listen 80', 'Listen 443', alias, 'VirtualHost 192.0.2.1:443 [2001:db8::1]:443 | ServerName b'),
      ['http - 127.0.0.1 80 /w', 'http b 192.0.2.1 443 /w', 'http b 2001:db8::1 443 /w'],
    );
    assert.deepEqual(tell('Listen 80', 'Listen 81', alias, 'VirtualHost * | SSLEngine on'), [
      'https - 127.0.0.1 80 /w',
      'https - 127.0.0.1 81 /w',
    ]);
  });

  it('are searched in only so many files, which is reported', () => {
    for (let i = 0; i < 9; i++) place(`deep${'/d'.repeat(i)}/f`, '');
    const { gaps, ways } = findWays(parse('Listen 80', `DocumentRoot "${at('deep')}"`));
    assert.deepEqual([gaps, ways], [[at('deep')], []]);
  });
});
