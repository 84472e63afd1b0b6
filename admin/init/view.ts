// The parts of a site that `init --view` adds: the program, its directory, its users, the snippet,
// and for a persistent process the systemd units and the inbox of acts.
import { join } from 'node:path';
import { shippedText } from '../site/shipped.ts';
import type { Places } from './places.ts';
import type { Wish } from './plan.ts';

export interface WantedView {
  /** The webjob-view.cgi to install. */
  script: Pick<Wish, 'kind' | 'mode'> & Partial<Wish>;
  /** The user of the persistent process; undefined when httpd starts a process for each page. */
  user: string | undefined;
  /** The user of httpd. No other user may use the socket. */
  webUser: string;
  /** The command line of webjobctl, for the unit that carries out acts. */
  webjobctl: string;
  /** The Debian package installed the program, with units for its own paths and users. */
  isPackaged?: boolean;
}

/** The paths and users in the units of the Debian package. */
const PACKAGED = {
  places: { viewState: '/var/lib/webjob-view', base: '/var/lib/webjob', etcDirectory: '/etc/webjob' },
  view: { user: 'webjob-view', webUser: 'www-data', isPackaged: true },
} as const;

/** Whether the units of the package fit. Copies would hide them, also those of its upgrades. */
function hasUnits(places: Places, view: WantedView): boolean {
  const isEqual = <Value extends object>(given: Value, packaged: Partial<Value>): boolean =>
    Object.entries(packaged).every(([key, value]) => given[key as keyof Value] === value);
  return isEqual(places, PACKAGED.places) && isEqual(view, PACKAGED.view);
}

const SOCKET = '/run/webjob-view/view.sock';
const UNITS = [
  'webjob-view.service',
  'webjob-view.socket',
  'webjob-acts.service',
  'webjob-acts.path',
  'webjob-acts.timer',
] as const;

export function planView(places: Places, view: WantedView): Wish[] {
  const { etcDirectory, viewDirectory, viewState, unitDirectory, base, layout } = places;
  const root = { owner: 'root', group: 'root' } as const;
  const folder = (path: string, mode = 0o755): Wish => ({ ...root, kind: 'folder', path, mode });
  const file = (path: string, content: string): Wish => ({ ...root, kind: 'file', path, mode: 0o644, content });
  const owner = view.user === undefined ? 'web' : 'view';
  const acts = join(base, 'config', 'webjob-acts');
  return [
    folder(viewDirectory),
    { ...root, ...view.script, path: join(viewDirectory, 'webjob-view.cgi') },
    file(join(etcDirectory, 'webjob-view.conf'), shippedText('apache/webjob-view.conf')),
    { kind: 'file', path: join(etcDirectory, 'webjob-view.htpasswd'), mode: 0o640, owner: 'root', group: 'web' },
    { ...folder(viewState, 0o700), owner, group: owner },
    ...(view.user === undefined
      ? []
      : [
          {
            kind: 'file',
            path: join(etcDirectory, 'webjob-view.groups'),
            mode: 0o640,
            owner: 'root',
            group: 'web',
          } as const,
          folder(acts),
          { ...folder(join(acts, 'inbox'), 0o700), owner, group: owner } as Wish,
          ...(hasUnits(places, view)
            ? []
            : [
                ...(layout === 'folder' ? [] : [{ ...folder(unitDirectory), isSystems: true as const }]),
                ...UNITS.map((name) => file(join(unitDirectory, name), formatUnit(name, places, view))),
              ]),
        ]),
  ];
}

/** A shipped unit with the paths of this site. */
function formatUnit(
  name: (typeof UNITS)[number],
  places: Places,
  { user = '', webUser, webjobctl }: WantedView,
): string {
  const { viewDirectory, viewState, base, etcDirectory } = places;
  return shippedText(`apache/systemd/${name}`)
    .replace('/usr/lib/cgi-bin/webjob-view/', () => `${viewDirectory}/`)
    .replace(/^User=.*$/m, () => `User=${user}`)
    .replace(/^SocketUser=.*$/m, () => `SocketUser=${webUser}`)
    .replace(/^StateDirectory=.*\nStateDirectoryMode=.*\n/m, () => `ReadWritePaths=${viewState}\n`)
    .replace('/usr/local/bin/webjobctl', () => webjobctl)
    .replace('/etc/webjob/', () => `${etcDirectory}/`)
    .replaceAll('/var/lib/webjob/config/', () => `${base}/config/`);
}

/** The values of webjob-view.conf, as lines of the site's file for httpd. */
export function formatViewLines({ etcDirectory, viewDirectory, viewState }: Places, { user }: WantedView): string {
  const own = (name: string): string => join(etcDirectory, name);
  const defines = Object.entries({
    WEBJOB_VIEW_DIRECTORY: viewDirectory,
    WEBJOB_VIEW_STATE: viewState,
    WEBJOB_VIEW_USER_FILE: own('webjob-view.htpasswd'),
    ...(user !== undefined && { WEBJOB_VIEW_SOCKET: SOCKET, WEBJOB_VIEW_GROUP_FILE: own('webjob-view.groups') }),
  }).map(([name, value]) => `Define ${name} ${value}\n`);
  return defines.join('');
}

/** Describes the steps that remain to be done by hand. */
export function describeViewSteps(
  { etcDirectory }: Places,
  { user }: WantedView,
  quoted: (path: string) => string,
): string[] {
  const reader = `htpasswd -B ${quoted(join(etcDirectory, 'webjob-view.htpasswd'))} alice`;
  if (user === undefined) return [reader];
  return [
    reader,
    `echo 'webjob-acts: alice' >> ${quoted(join(etcDirectory, 'webjob-view.groups'))}`,
    'systemctl daemon-reload && systemctl enable --now webjob-view.socket webjob-acts.path webjob-acts.timer',
  ];
}
