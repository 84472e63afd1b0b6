// The paths of a site's files: the article's layout, Debian's, or everything in one directory.
import { join } from 'node:path';

export interface Places {
  layout: 'article' | 'debian' | 'folder';
  /** The target of ScriptAlias, for nph-webjob.cgi and .htaccess. */
  cgiDirectory: string;
  /** The directory of nph-webjob.cfg, the snippets, the user file and the certificates. */
  etcDirectory: string;
  /** BaseDirectory. */
  base: string;
  /** The file that httpd includes. */
  siteFile: string;
  /**
   * The directory in which man and shells look for files of locally installed programs; in a layout
   * of one directory, the same structure below it.
   */
  shareDirectory: string;
  /** The directory in which fish looks, because fish ignores /usr/local. */
  fishDirectory: string;
  /** The view's program for httpd, with nothing else beside it. */
  viewDirectory: string;
  /** The view's own directory. */
  viewState: string;
  /**
   * The directory of the systemd units; in a layout of one directory, they must be linked into
   * systemd's own.
   */
  unitDirectory: string;
  /**
   * The configuration for logrotate; in a layout of one directory, logrotate.conf must include it.
   */
  logrotateFile: string;
}

/** The paths for `--prefix`, and `--base` if that differs. */
export function findPlaces(prefix: string, base: string | undefined): Places {
  const places = PLACES[prefix] ?? {
    layout: 'folder',
    cgiDirectory: join(prefix, 'webjob'),
    etcDirectory: join(prefix, 'etc'),
    base: join(prefix, 'integrity'),
    siteFile: join(prefix, 'etc', 'webjob-site.conf'),
    shareDirectory: join(prefix, 'share'),
    fishDirectory: join(prefix, 'share', 'fish', 'vendor_completions.d'),
    viewDirectory: join(prefix, 'view'),
    viewState: join(prefix, 'view-state'),
    unitDirectory: join(prefix, 'etc'),
    logrotateFile: join(prefix, 'etc', 'webjob.logrotate'),
  };
  return base === undefined ? places : { ...places, base };
}

const SYSTEM = { viewState: '/var/lib/webjob-view', unitDirectory: '/etc/systemd/system' } as const;

const PLACES: Record<string, Places> = {
  article: {
    layout: 'article',
    cgiDirectory: '/usr/local/apache/webjob',
    etcDirectory: '/usr/local/apache/etc',
    base: '/var/integrity',
    siteFile: '/usr/local/apache/etc/webjob-site.conf',
    viewDirectory: '/usr/local/apache/webjob-view',
    ...SYSTEM,
    shareDirectory: '/usr/local/share',
    fishDirectory: '/etc/fish/completions',
    logrotateFile: '/etc/logrotate.d/webjob',
  },
  debian: {
    layout: 'debian',
    cgiDirectory: '/usr/lib/cgi-bin/webjob',
    etcDirectory: '/etc/webjob',
    base: '/var/lib/webjob',
    siteFile: '/etc/apache2/conf-available/webjob.conf',
    viewDirectory: '/usr/lib/cgi-bin/webjob-view',
    ...SYSTEM,
    shareDirectory: '/usr/local/share',
    fishDirectory: '/etc/fish/completions',
    logrotateFile: '/etc/logrotate.d/webjob',
  },
};
