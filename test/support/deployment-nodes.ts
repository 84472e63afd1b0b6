// Servers of one locker and a balancer in front of them, with the lines of apache/README.md and the
// shipped files.
import { chownSync, cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { custodyPath } from '../../cgi/locker/index.ts';
import type { Site } from '../../scripts/site.ts';
import { findWebUser } from '../../scripts/web-user.ts';
import { readGuide } from './deployment-guide.ts';
import { type Apache, formatBasics, startApache } from './deployment-httpd.ts';

export const shipped = join(import.meta.dirname, '..', '..', 'apache');
/** The address of the balancer's own requests; clients use other loopback addresses. */
export const BALANCER = '127.0.0.2';
export const NODE_MODULES =
  'mpm_event cgid alias env setenvif auth_basic authn_core authn_file authz_core authz_user reqtimeout remoteip headers';
const BALANCER_MODULES =
  'mpm_event env authz_core reqtimeout proxy proxy_http proxy_balancer proxy_hcheck lbmethod_byrequests slotmem_shm headers';

/** The lines of the guide, with the paths of the checkout. */
const [balancerLines = '', nodeLines = ''] = readGuide('apache/README.md', '', [])
  .blocks('apache', 'Several servers behind a balancer')
  .map((lines) => lines.replaceAll('/usr/local/apache/etc', shipped));

export interface NodeOptions {
  settings?: string;
  /** Lines before the guide's. */
  before?: string;
  /** BaseDirectory, where it is not the site's: its own mount of a shared file system. */
  base?: string;
  /** LogfilesDirectory, where each node of a shared file system has its own. */
  logfiles?: string;
  /** The port of a killed node that comes back. */
  port?: number | undefined;
}

/** A server of the site with its own ServerId, settings and script directory. */
export async function startNode(site: Site, name: string, options: NodeOptions = {}): Promise<Apache> {
  const { settings = 'EnableHostAccessList=Y\n', before = '', port, base = site.base } = options;
  const logfiles = options.logfiles ?? dirname(site.logFile);
  const root = join(site.root, name);
  const [configurationFile, settingsFile] = [join(root, 'httpd.conf'), join(root, 'nph-webjob.cfg')];
  cpSync(site.cgiDirectory, join(root, 'webjob'), { recursive: true });
  writeFileSync(
    settingsFile,
    `BaseDirectory=${base}
LogfilesDirectory=${logfiles}
ServerId=${name}
PutNameFormat=%cid_%Y%m%d%H%M%S_%sid_%pid_%cmd
${settings}`,
  );
  // A server that comes back continues its record.
  const custody = custodyPath(logfiles, name);
  writeFileSync(custody, '', { flag: 'a', mode: 0o644 });
  const web = process.getuid?.() === 0 ? findWebUser() : undefined;
  if (web) chownSync(custody, web.uid, web.gid);
  const lines = `
Define WEBJOB_CGI_DIRECTORY "${join(root, 'webjob')}"
Define WEBJOB_PROPERTIES_FILE "${settingsFile}"
${before}
${nodeLines.replace('192.0.2.2', BALANCER)}
`;
  return startApache({
    serverRoot: root,
    configurationFile,
    errorLog: join(root, 'error.log'),
    portCount: 1,
    ports: port === undefined ? undefined : [port],
    configure: (ports) => writeFileSync(configurationFile, formatBasics(root, ports, NODE_MODULES) + lines),
  });
}

export interface BalancerOptions {
  portCount?: number;
  modules?: string;
  /** Lines before the guide's. */
  format?(guide: string, ports: number[]): string;
}

export async function startBalancer(site: Site, nodes: Apache[], options: BalancerOptions = {}): Promise<Apache> {
  const { portCount = 1, modules = '', format = (guide: string) => guide } = options;
  const root = join(site.root, 'balancer');
  mkdirSync(root);
  const configurationFile = join(root, 'httpd.conf');
  const [first = '', second = ''] = nodes.map(({ ports: [port] }) => `http://127.0.0.1:${port}`);
  const local = (text: string): string =>
    text.replaceAll('http://192.0.2.11', first).replaceAll('http://192.0.2.12', second);
  return startApache({
    serverRoot: root,
    configurationFile,
    errorLog: join(root, 'error.log'),
    portCount,
    configure: (ports) =>
      writeFileSync(
        configurationFile,
        `${formatBasics(root, ports, `${BALANCER_MODULES} ${modules}`).replace(/^ScriptSock.*$/m, '')}
ProxySourceAddress ${BALANCER}
# A connection that the balancer does not end behind its answer outlives every time limit here.
KeepAliveTimeout 300
Define WEBJOB_HEALTH_INTERVAL 200ms
${local(format(balancerLines, ports))}
`,
      ),
  });
}
