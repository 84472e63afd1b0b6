// Remedies as commands that can be pasted: each changes one thing, and reloads httpd if necessary.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { quote } from '../../cli/shell.ts';
import { type HttpdOptions, reloadCommand } from '../site/httpd-control.ts';
import type { ShippedFile } from '../site/shipped.ts';

export type AccessKind = 'apache/htaccess' | 'apache/htaccess-certificates' | 'apache/htaccess-either';

export interface MendsOptions {
  propertiesFile: string;
  etcDirectory: string;
  httpd: HttpdOptions;
  /** The main configuration file of httpd. */
  httpdConf: string;
  shippedText(name: ShippedFile): string;
}

export type Mends = ReturnType<typeof makeMends>;

export function makeMends({ propertiesFile, etcDirectory, httpd, httpdConf, shippedText }: MendsOptions) {
  const reload = reloadCommand(httpd).map(quote).join(' ');
  const siteFiles = [join(etcDirectory, 'webjob-site.conf'), '/etc/apache2/conf-available/webjob.conf'];

  /**
   * For a directive whose value comes from a Define, the Define is changed, because the file itself
   * is shared by all sites.
   */
  const replaceDirective = (where: string, name: string, value: string, defined = value): string => {
    const { file, line } = splitPlace(where);
    const variable = /\$\{(\w+)\}/.exec(readLine(file, line))?.[1];
    const definedIn =
      variable === undefined
        ? undefined
        : siteFiles.find((path) => existsSync(path) && readFileSync(path, 'utf8').includes(`Define ${variable} `));
    const edit =
      definedIn === undefined
        ? replaceLine(file, line, `${name} ${value}`)
        : `sed -i ${quote(`s|^Define ${variable} .*|Define ${variable} ${defined}|`)} ${quote(definedIn)}`;
    return `${edit} && ${reload}`;
  };

  return {
    propertiesFile,
    etcDirectory,
    reload,
    httpdConf,
    webjobctl: `webjobctl --config ${quote(propertiesFile)}`,
    replaceDirective,
    /** A command that removes a line from a file of httpd. */
    removeDirective: (where: string): string => {
      const { file, line } = splitPlace(where);
      return `sed -i ${line}d ${quote(file)} && ${reload}`;
    },
    /** A command that adds lines to the server configuration, outside of virtual hosts. */
    addDirectives: (...lines: string[]): string =>
      `printf '%s\\n' ${lines.map(quote).join(' ')} >> ${quote(httpdConf)} && ${reload}`,
    /** A command that writes a shipped .htaccess without its comments. */
    writeAccess: (kind: AccessKind, file: string): string => {
      const lines = shippedText(kind)
        .split('\n')
        .filter((line) => !/^\s*(?:#|$)/.test(line))
        .map((line) => line.replace(/^AuthUserFile .*/, `AuthUserFile ${join(etcDirectory, 'webjob.htpasswd')}`));
      return `printf '%s\\n' ${lines.map(quote).join(' ')} > ${quote(file)} && chmod 644 ${quote(file)}`;
    },
  };
}

/** A command that sets a setting in `FILE:LINE`, or adds it to a file without it. */
export function setControl(place: string, key: string, value: string): string {
  const { file, line } = splitPlace(place);
  const text = `${key}=${value}`;
  return line > 0 ? replaceLine(file, line, text) : `echo ${quote(text)} >> ${quote(file)}`;
}

/** A command that replaces a line of a file. */
export function replaceLine(file: string, line: number, text: string): string {
  return `sed -i ${quote(`${line}c\\${text.replaceAll('\\', '\\\\')}`)} ${quote(file)}`;
}

/** Splits `FILE:LINE`; line 0 when no line is named. */
function splitPlace(where: string): { file: string; line: number } {
  const [, file = where, line = '0'] = /^(.*):(\d+)$/.exec(where) ?? [];
  return { file, line: Number(line) };
}

function readLine(file: string, line: number): string {
  return existsSync(file) ? (readFileSync(file, 'utf8').split('\n')[line - 1] ?? '') : '';
}
