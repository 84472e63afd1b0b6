// webjobctl init on a stock Debian, with its own httpd, virtual hosts and serve-cgi-bin.conf: who
// is let in, by every path that leads to the script.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Debian, findObstacle, openDebian } from '../support/debian-namespace.ts';

const QUERY = '?VERSION=webjob+1.4.0&SYSTEM=curl&CLIENTID=client1&FILENAME=host.sh';
const NO_DEBIAN = findObstacle();

describe('webjobctl init --prefix debian --tls --apply', { skip: NO_DEBIAN, timeout: 600_000 }, () => {
  let debian: Debian;
  let password = '';
  const init = 'webjobctl init --prefix debian --tls --server-name localhost --apply';
  before(async () => {
    debian = await openDebian();
    debian.must(`${init}
webjobctl -c /etc/webjob/nph-webjob.cfg client add client1 --generate --url https://localhost --out /root/client1
printf '#!/bin/sh\\nhostname\\n' > /var/lib/webjob/profiles/client1/commands/host.sh`);
    password = debian.must("sed -n 's/^URLPassword=//p' /root/client1/webjob.conf").trim();
  });
  after(() => debian?.close());

  const ask = (url: string, ...words: string[]): number =>
    debian.status('-H', 'Content-Length: 0', ...words, url + QUERY);
  const asClient = (): string[] => ['-u', `client1:${password}`];

  it('serves the client over TLS', () => {
    assert.equal(ask('https://localhost/webjob/nph-webjob.cgi', ...asClient()), 200);
    assert.equal(ask('https://localhost/webjob/nph-webjob.cgi'), 401);
  });

  it('refuses requests to the script without TLS, even at the path of Debian', () => {
    for (const path of [
      '/cgi-bin/webjob/nph-webjob.cgi',
      '/cgi-bin/webjob/./nph-webjob.cgi',
      '/cgi-bin//webjob/nph-webjob.cgi',
    ])
      for (const who of [[], asClient()])
        assert.equal(ask(`http://localhost${path}`, '--path-as-is', ...who), 403, path);
    assert.equal(ask('http://localhost/webjob/nph-webjob.cgi', ...asClient()), 404);
  });

  it('requires credentials over TLS at the path of Debian', () => {
    const url = 'https://localhost/cgi-bin/webjob/nph-webjob.cgi';
    assert.deepEqual([ask(url), ask(url, ...asClient())], [401, 200]);
  });

  it('refuses requests to the script in other virtual hosts, with and without TLS', () => {
    debian.must(`cat > /etc/apache2/sites-available/other.conf <<'END'
Listen 8080
Listen 8443
<VirtualHost *:8080>
  Include conf-available/serve-cgi-bin.conf
</VirtualHost>
<VirtualHost *:8443>
  SSLEngine on
  SSLCertificateFile /etc/webjob/webjob-server.crt
  SSLCertificateKeyFile /etc/webjob/webjob-server.key
  Include conf-available/serve-cgi-bin.conf
</VirtualHost>
END
a2ensite -q other
apachectl restart 2>&1; sleep 2`);
    for (const host of ['http://localhost:8080', 'https://localhost:8443'])
      assert.equal(ask(`${host}/cgi-bin/webjob/nph-webjob.cgi`, ...asClient()), 403, host);
    assert.equal(ask('https://localhost/webjob/nph-webjob.cgi', ...asClient()), 200);
  });

  it('does not answer TRACE', () => {
    for (const url of ['https://localhost/webjob/nph-webjob.cgi', 'http://localhost/webjob/nph-webjob.cgi'])
      assert.equal(ask(url, '-X', 'TRACE'), 405);
  });

  /** The findings of configtest, by kind and URL or file. */
  const test = (): string[] => {
    const { stdout } = debian.run('webjobctl --json -c /etc/webjob/nph-webjob.cfg configtest');
    const findings = stdout.split('\n').filter(Boolean);
    return findings
      .map((line) => JSON.parse(line) as { severity: string; what: string; where: string })
      .filter(
        ({ severity, what, where }) =>
          /without credentials|TRACE|as a file/.test(what) || /cgi-bin/.test(where + severity),
      )
      .map(({ severity, what, where }) => `${severity} ${what.replace(/[:,].*| on all \d+ ways/, '')} ${where}`)
      .sort();
  };

  it('leaves no way to the script open, and configtest has tried each one', () => {
    assert.deepEqual(test(), ['note requests without credentials are refused to the script httpd']);
  });

  it('finds every path to the script that is open', () => {
    debian.must(`ln -s webjob/nph-webjob.cgi /usr/lib/cgi-bin/linked
cp /usr/lib/cgi-bin/webjob/nph-webjob.cgi /var/www/html/copied
cat > /etc/apache2/conf-enabled/zz-open.conf <<'END'
TraceEnable On
<Location "/cgi-bin/webjob">
  Require all granted
</Location>
END
apachectl graceful 2>&1; sleep 2`);
    const found = test();
    for (const url of [
      ...['http://127.0.0.1:80', 'https://localhost:443', 'http://127.0.0.1:8080', 'https://127.0.0.1:8443'].flatMap(
        (host) => [`${host}/cgi-bin/linked`, `${host}/cgi-bin/webjob/nph-webjob.cgi`],
      ),
    ])
      assert.ok(
        found.some((line) => line.startsWith('error requests without credentials reach') && line.endsWith(` ${url}`)),
        url,
      );
    assert.ok(found.includes('warning httpd serves the script as a file http://127.0.0.1:80/copied'));
    assert.ok(found.includes('warning httpd echoes requests http://127.0.0.1:80/'));
    assert.ok(!found.some((line) => line.includes('443/webjob/')), 'the way that is guarded is none of them');
    debian.must(`rm /usr/lib/cgi-bin/linked /var/www/html/copied /etc/apache2/conf-enabled/zz-open.conf
apachectl graceful 2>&1; sleep 2`);
    assert.deepEqual(test(), ['note requests without credentials are refused to the script httpd']);
  });

  it('leaves no earlier script where httpd runs it when init --force replaces it', () => {
    debian.must(`echo '// mine' >> /usr/lib/cgi-bin/webjob/nph-webjob.cgi; ${init} --force`);
    const found = debian.must('ls -A /usr/lib/cgi-bin /usr/lib/cgi-bin/webjob; ls /etc/webjob/replaced');
    assert.match(
      found,
      /^\/usr\/lib\/cgi-bin:\nwebjob\n\n\/usr\/lib\/cgi-bin\/webjob:\n\.htaccess\nnph-webjob\.cgi\nnph-webjob\.cgi\.\d{8}T\d{6}\.bak\n$/,
    );
    assert.equal(ask('https://localhost/webjob/nph-webjob.cgi', ...asClient()), 200);
  });
});
