// The parts of a site as data: every directory and file with its owner and mode. Dry run, apply and
// --json all use this list.
import { dirname, join, relative } from 'node:path';
import { custodyPath, segmentFolder, segmentName } from 'webjob-locker';
import { formatGenesis } from '../../evidence/events.ts';
import { witnessFiles } from '../../evidence/witness.ts';
import { type ShippedFile, shippedText } from '../site/shipped.ts';
import type { Places } from './places.ts';
import { formatViewLines, planView, type WantedView } from './view.ts';

export interface Wish {
  kind: 'folder' | 'file' | 'link';
  path: string;
  mode: number;
  owner: 'root' | 'web' | 'view';
  /** `analysts` is the group of --private. */
  group: 'root' | 'web' | 'analysts' | 'view';
  /**
   * The content of a file; undefined for one whose content belongs to the site: a log, the user
   * file.
   */
  content?: string;
  /** The target of a link. */
  target?: string;
  /** The file that a package installs there, which is replaced without --force. */
  packaged?: string;
  /** The first line of a log, when it is created. */
  first?: string;
  /** A directory that is shared with others: an existing one stays as it is. */
  isSystems?: true;
  /** For files that openssl makes together, the function that makes those that are missing. */
  maker?: 'server certificate' | 'client authority' | 'witness';
}

export interface Wanted {
  places: Places;
  serverId: string;
  /** The name of the TLS virtual host; undefined without TLS. */
  serverName: string | undefined;
  tlsPort: number;
  /** Whether clients authenticate with certificates. */
  certificates: boolean;
  /** With certificates, whether clients may use passwords instead. */
  passwords: boolean;
  /**
   * Whether root keeps a witness of the custody record. A witness is useless for a user's own site,
   * where that user can write to every file.
   */
  hasWitness: boolean;
  /** Whether only the web user and a group of analysts can read uploads and logs. */
  isPrivate: boolean;
  /** The user and group of a new log, by name. Undefined for a user's own site. */
  logOwner: readonly [user: string, group: string] | undefined;
  /** nph-webjob.cgi: a text with the Node for its first line, or a package's file to link to. */
  script: { text: string; node: string } | { target: string };
  /** Man pages and completions. */
  documents: readonly Wish[];
  /** The view, if --view is given. */
  view: WantedView | undefined;
}

const ROOTS = { owner: 'root', group: 'root' } as const;

export function planSite(wanted: Wanted): Wish[] {
  const { places } = wanted;
  const { cgiDirectory, etcDirectory, base } = places;
  const folder = (path: string): Wish => {
    return { kind: 'folder', path, mode: 0o755, owner: 'root', group: 'root' };
  };
  const file = (path: string, content: string, mode = 0o644): Wish => {
    return { kind: 'file', path, mode, owner: 'root', group: 'root', content };
  };
  // New files in these directories may have any mode, because the directories admit nobody else.
  const group = wanted.isPrivate ? 'analysts' : 'root';
  const evidence = (path: string): Wish => {
    return { kind: 'folder', path, mode: wanted.isPrivate ? 0o750 : 0o755, owner: 'web', group };
  };
  const logMode = wanted.isPrivate ? 0o640 : 0o644;
  const log = (name: string): Wish => {
    return { kind: 'file', path: join(base, 'logfiles', name), mode: logMode, owner: 'web', group };
  };
  const snippet = (name: ShippedFile): Wish => file(join(etcDirectory, name.replace('apache/', '')), shippedText(name));
  return [
    folder(cgiDirectory),
    { ...planScript(wanted.script), ...ROOTS, path: join(cgiDirectory, 'nph-webjob.cgi') },
    file(join(cgiDirectory, '.htaccess'), formatHtaccess(wanted)),
    folder(etcDirectory),
    file(join(etcDirectory, 'nph-webjob.cfg'), formatSettings(wanted)),
    snippet('apache/webjob.conf'),
    ...(wanted.serverName === undefined ? [] : [snippet('apache/webjob-tls.conf')]),
    ...(wanted.certificates ? [snippet('apache/webjob-certificates.conf')] : []),
    {
      ...file(places.siteFile, formatSiteFile(wanted)),
      ...packagedAs(places, shippedText('apache/debian/webjob.conf')),
    },
    ...(places.logrotateFile.startsWith(etcDirectory)
      ? []
      : [{ ...folder(dirname(places.logrotateFile)), isSystems: true as const }]),
    {
      ...file(places.logrotateFile, formatLogrotate(wanted, logMode)),
      ...packagedAs(places, placeLogrotate(shippedText('conf/webjob.logrotate'), '/var/lib/webjob')),
    },
    { kind: 'file', path: join(etcDirectory, 'webjob.htpasswd'), mode: 0o640, owner: 'root', group: 'web' },
    ...planIdentities(wanted),
    folder(base),
    evidence(join(base, 'incoming')),
    // Made even when no limits are set yet, because the web user could not create the directory
    // later.
    evidence(join(base, 'limits')),
    // Made even when there are no assignments yet, because the web user could not create the
    // directory later.
    evidence(join(base, 'dynamic')),
    // The web user passes through this directory to the logs; it belongs to root, so that no log
    // can be replaced.
    { ...folder(join(base, 'logfiles')), mode: wanted.isPrivate ? 0o751 : 0o755, group },
    // Logs are made even before they are enabled, because the web user could not create them later.
    ...['nph-webjob.log', 'nph-webjob.json.log', 'nph-webjob-hook.log', 'nph-webjob-trigger.log'].map(log),
    { ...log(custodyPath('', wanted.serverId)), first: formatGenesis(wanted.serverId) },
    evidence(join(base, 'logfiles', segmentFolder(custodyPath('', wanted.serverId)))),
    folder(join(base, 'profiles')),
    ...wanted.documents,
    ...(wanted.hasWitness ? planWitness(wanted) : []),
    ...(wanted.view ? planView(places, wanted.view) : []),
  ];
}

function planWitness({ places: { base }, serverId }: Wanted): Wish[] {
  const folder = join(base, 'config', 'nph-webjob');
  return [
    ...[dirname(folder), folder].map((path): Wish => {
      return { kind: 'folder', path, mode: 0o755, owner: 'root', group: 'root' };
    }),
    ...witnessFiles(relative(folder, join(base, 'logfiles')), segmentName(custodyPath('', serverId), 1)).map(
      (name): Wish => {
        return { kind: 'file', path: join(folder, name), mode: 0o600, owner: 'root', group: 'root', maker: 'witness' };
      },
    ),
  ];
}

function planIdentities({ places, serverName, certificates }: Wanted): Wish[] {
  const made = (maker: NonNullable<Wish['maker']>, name: string, mode: number): Wish => {
    return { kind: 'file', path: join(places.etcDirectory, name), mode, owner: 'root', group: 'root', maker };
  };
  return [
    ...(serverName === undefined
      ? []
      : [
          made('server certificate', 'webjob-server.key', 0o600),
          made('server certificate', 'webjob-server.crt', 0o644),
        ]),
    ...(certificates
      ? [made('client authority', 'webjob-ca.crt', 0o644), made('client authority', 'webjob-ca.crl', 0o644)]
      : []),
  ];
}

/**
 * A text gets its interpreter by absolute path, so that httpd's PATH does not matter. A link
 * follows upgrades of the package.
 */
export function planScript(script: Wanted['script']): Pick<Wish, 'kind' | 'mode' | 'content' | 'target'> {
  if ('target' in script) return { kind: 'link', mode: 0o777, target: script.target };
  const content = script.text.replace(/^#!.*/, () => `#!${script.node}`);
  return { kind: 'file', mode: 0o755, content };
}

function packagedAs({ layout }: Places, packaged: string): Pick<Wish, 'packaged'> {
  return layout === 'debian' ? { packaged } : {};
}

function formatHtaccess({ places, certificates, passwords }: Wanted): string {
  if (certificates && !passwords) return shippedText('apache/htaccess-certificates');
  const userFile = join(places.etcDirectory, 'webjob.htpasswd');
  const shipped = shippedText(certificates ? 'apache/htaccess-either' : 'apache/htaccess');
  return shipped.replace(/^AuthUserFile .*$/m, () => `AuthUserFile ${userFile}`);
}

function formatSettings({ places, serverId, serverName, tlsPort, certificates, passwords, view }: Wanted): string {
  const host = serverName?.includes(':') ? `[${serverName}]` : serverName;
  const controls = {
    BaseDirectory: places.base,
    ServerId: serverId,
    ...(serverName !== undefined && { SslRequireSsl: 'Y' }),
    ...(certificates && !passwords && { SslRequireMatch: 'Y' }),
  };
  const viewURL = `https://${host}${tlsPort === 443 ? '' : `:${tlsPort}`}/webjob-view`;
  const own = { ...controls, ...(view && host !== undefined && { ViewURL: viewURL }) };
  return Object.entries(own).reduce(
    (text, [key, value]) => text.replace(new RegExp(`^#?${key}=.*$`, 'm'), () => `${key}=${value}`),
    shippedText('conf/nph-webjob.cfg'),
  );
}

function placeLogrotate(shipped: string, base: string): string {
  return shipped.replaceAll('/var/integrity/logfiles/', () => join(base, 'logfiles/'));
}

function formatLogrotate({ places, logOwner }: Wanted, mode: number): string {
  const own = ['create', `0${mode.toString(8)}`, ...(logOwner ?? [])].join(' ');
  return placeLogrotate(shippedText('conf/webjob.logrotate'), places.base).replace(/create 0644 .*/, () => own);
}

/**
 * The file that httpd includes: the paths of this site, then the snippet. If nothing differs from
 * Debian's layout, Debian's own file.
 */
function formatSiteFile({ places, serverName, tlsPort, certificates, passwords, view }: Wanted): string {
  const viewLines = view ? formatViewLines(places, view) : '';
  const viewInclude = view ? `Include ${join(places.etcDirectory, 'webjob-view.conf')}\n` : '';
  const { cgiDirectory, etcDirectory } = places;
  const own = (name: string): string => join(etcDirectory, name);
  if (places.layout === 'debian' && serverName === undefined)
    return `${shippedText('apache/debian/webjob.conf')}${viewLines}${viewInclude}`;
  const defines = Object.entries({
    WEBJOB_CGI_DIRECTORY: cgiDirectory,
    WEBJOB_PROPERTIES_FILE: own('nph-webjob.cfg'),
    ...(serverName !== undefined && {
      WEBJOB_SERVER_NAME: serverName,
      WEBJOB_SERVER_CERTIFICATE: own('webjob-server.crt'),
      WEBJOB_SERVER_KEY: own('webjob-server.key'),
      WEBJOB_SNIPPETS: etcDirectory,
      ...(tlsPort !== 443 && { WEBJOB_TLS_PORT: String(tlsPort) }),
    }),
    ...(certificates && { WEBJOB_CA_FILE: own('webjob-ca.crt'), WEBJOB_CRL_FILE: own('webjob-ca.crl') }),
  }).map(([name, value]) => `Define ${name} ${value}\n`);
  // webjob-tls.conf includes the view in its virtual host, so that nobody reaches it without TLS.
  const rest =
    serverName === undefined
      ? `Include ${own('webjob.conf')}\n${viewLines}${viewInclude}`
      : `${view ? 'Define WEBJOB_VIEW\n' : ''}${viewLines}Include ${own('webjob-tls.conf')}\n`;
  return `# This site's places, as webjobctl init laid them out. Include it in httpd.conf behind the last ScriptAlias.
${defines.join('')}${certificates ? 'Define WEBJOB_CERTIFICATES\n' : ''}${passwords ? 'Define WEBJOB_CERTIFICATE_OPTIONAL\n' : ''}${rest}`;
}
