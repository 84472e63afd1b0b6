// Remedies as commands that can be pasted: each changes one thing, and has httpd take it up where it is httpd's.
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
  /** Where httpd begins to read. */
  httpdConf: string;
  shippedText(name: ShippedFile): string;
}

export type Mends = ReturnType<typeof makeMends>;

export function makeMends({ propertiesFile, etcDirectory, httpd, httpdConf, shippedText }: MendsOptions) {
  const reload = reloadCommand(httpd).map(quote).join(' ');
  const siteFiles = [join(etcDirectory, 'webjob-site.conf'), '/etc/apache2/conf-available/webjob.conf'];

  /** Of a directive that takes its value from a Define the Define is changed: the file itself belongs to every site. */
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
    /** Takes a line out of a file of httpd. */
    removeDirective: (where: string): string => {
      const { file, line } = splitPlace(where);
      return `sed -i ${line}d ${quote(file)} && ${reload}`;
    },
    /** Adds lines to the server's own configuration, outside of virtual hosts. */
    addDirectives: (...lines: string[]): string =>
      `printf '%s\\n' ${lines.map(quote).join(' ')} >> ${quote(httpdConf)} && ${reload}`,
    /** Writes a shipped .htaccess without its comments. */
    writeAccess: (kind: AccessKind, file: string): string => {
      const lines = shippedText(kind)
        .split('\n')
        .filter((line) => !/^\s*(?:#|$)/.test(line))
        .map((line) => line.replace(/^AuthUserFile .*/, `AuthUserFile ${join(etcDirectory, 'webjob.htpasswd')}`));
      return `printf '%s\\n' ${lines.map(quote).join(' ')} > ${quote(file)} && chmod 644 ${quote(file)}`;
    },
  };
}

/** A command that sets a control in `FILE:LINE`, or in a file that does not have it. */
export function setControl(place: string, key: string, value: string): string {
  const { file, line } = splitPlace(place);
  const text = `${key}=${value}`;
  return line > 0 ? replaceLine(file, line, text) : `echo ${quote(text)} >> ${quote(file)}`;
}

/** A command that replaces a line of a file. */
export function replaceLine(file: string, line: number, text: string): string {
  return `sed -i ${quote(`${line}c\\${text.replaceAll('\\', '\\\\')}`)} ${quote(file)}`;
}

/** `FILE:LINE`; 0 where no line is named. */
function splitPlace(where: string): { file: string; line: number } {
  const [, file = where, line = '0'] = /^(.*):(\d+)$/.exec(where) ?? [];
  return { file, line: Number(line) };
}

function readLine(file: string, line: number): string {
  return existsSync(file) ? (readFileSync(file, 'utf8').split('\n')[line - 1] ?? '') : '';
}
