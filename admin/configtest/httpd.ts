// httpd's configuration, from httpd's own -t and dumps, so that its actual interpretation counts.
import { existsSync } from 'node:fs';
import { delimiter, dirname, join, resolve } from 'node:path';
import { quote } from '../../cli/shell.ts';
import { askProgram } from '../site/programs.ts';
import { error, type Finding, note } from './finding.ts';

export interface Directive {
  name: string;
  /**
   * The value as httpd sees it: variables are replaced, and quotes around the whole value removed.
   */
  value: string;
  /** `Directory "/usr/lib/cgi-bin/webjob"`, from the outermost to the innermost. */
  sections: string[];
  where: string;
}

export interface Httpd {
  modules: string[];
  /** The directives in order; undefined when mod_info is not available. */
  directives: Directive[] | undefined;
  /** The user and group that httpd switches to. */
  userName: string | undefined;
}

/** The known facts about httpd, even when its configuration cannot be used. */
export interface AskedHttpd {
  httpd: Httpd | undefined;
  findings: Finding[];
  /** The `apachectl` or `httpd` that reported the configuration. */
  program: string | undefined;
  /** The main configuration file; undefined when httpd does not report it. */
  conf: string | undefined;
}

const NAMES = ['apachectl', 'apache2', 'httpd'];
const FOLDERS = ['/usr/sbin', '/usr/local/sbin', '/usr/local/apache/bin', '/usr/local/apache2/bin'];
const INFO_MODULES = [
  '/usr/lib/apache2/modules/mod_info.so',
  '/usr/lib64/httpd/modules/mod_info.so',
  '/usr/libexec/apache2/mod_info.so',
  '/usr/local/libexec/apache24/mod_info.so',
  '/usr/local/apache/modules/mod_info.so',
  '/usr/local/apache2/modules/mod_info.so',
];

/** Asks httpd. When there is none, or it rejects its configuration, the findings say so. */
export function askHttpd(given: string | undefined, conf: string | undefined): AskedHttpd {
  const program = given ?? findProgram();
  const asked = (httpd: Httpd | undefined, ...findings: Finding[]): AskedHttpd => {
    return { httpd, findings, program, conf };
  };
  if (program === undefined)
    return asked(
      undefined,
      note('no httpd was found, so its configuration was not checked', 'PATH', '--httpd PROGRAM'),
    );
  const file = conf === undefined ? [] : ['-f', conf];
  const ask = (...args: string[]) => askProgram(program, [...file, ...args]);
  const test = ask('-t', '-D', 'DUMP_MODULES', '-D', 'DUMP_RUN_CFG');
  if (test.status !== 0) {
    const said = test.stderr.trim().split('\n').slice(-3).join(' ');
    return asked(undefined, describeRefusal(said, conf, [program, ...file, '-t']));
  }
  const modules = [...test.stdout.matchAll(/^ (\w+)_module /gm)].map(([, name = '']) => name);
  const userName = /^User: name="([^"]+)"/m.exec(test.stdout)?.[1];
  const directives = findDirectives(ask, modules, program);
  const findings =
    directives === undefined
      ? [note('without mod_info httpd does not report which directives apply, so they were not checked', program)]
      : [];
  return asked({ modules, directives, userName }, ...findings);
}

/** An unknown directive is removed; anything else needs a person. */
function describeRefusal(said: string, conf: string | undefined, test: string[]): Finding {
  const [, line, file] = /[Ss]yntax error on line (\d+) of (\S+):/.exec(said) ?? [];
  const hint = conf === undefined ? '; --httpd-conf FILE when httpd reads another file' : '';
  const remedy =
    line !== undefined && file !== undefined && said.includes('Invalid command')
      ? `sed -i ${quote(`${line}s/^/#/`)} ${quote(file)}  # or correct that line`
      : `${test.map(quote).join(' ')}  # and correct what it reports${hint}`;
  const where = file === undefined ? (conf ?? test[0] ?? '') : `${file}:${line}`;
  return error(`httpd refuses its configuration: ${said}`, where, remedy);
}

/** The configuration file that it was built with (`-V`), for commands that change it. */
export function askConfigurationFile(program: string): string | undefined {
  const { stdout } = askProgram(program, ['-V']);
  const find = (name: string): string => new RegExp(`-D ${name}="([^"]*)"`).exec(stdout)?.[1] ?? '';
  const file = find('SERVER_CONFIG_FILE');
  return file === '' ? undefined : resolve(find('HTTPD_ROOT') || '/', file);
}

function findProgram(): string | undefined {
  const folders = [...(process.env.PATH ?? '').split(delimiter), ...FOLDERS];
  return NAMES.flatMap((name) => folders.map((folder) => join(folder, name))).find((path) => existsSync(path));
}

type Ask = (...args: string[]) => { status: number | null; stdout: string };

/** mod_info is loaded for this question if it is not loaded anyway. */
function findDirectives(ask: Ask, modules: readonly string[], program: string): Directive[] | undefined {
  const places = [...INFO_MODULES, join(dirname(program), '..', 'modules', 'mod_info.so')];
  const info = places.find((path) => existsSync(path));
  if (!modules.includes('info') && info === undefined) return undefined;
  const load = modules.includes('info') ? [] : ['-C', `LoadModule info_module ${info}`];
  const { status, stdout } = ask(...load, '-t', '-D', 'DUMP_CONFIG');
  return status === 0 && stdout.includes('# In file:') ? parseDump(stdout) : undefined;
}

/**
 * Parses a dump: `# In file: F`, `# N:` for the line, then a directive; sections open and close as
 * in httpd.conf.
 */
function parseDump(text: string): Directive[] {
  const directives: Directive[] = [];
  const sections: string[] = [];
  let [file, line] = ['', ''];
  for (const raw of text.split('\n')) {
    const statement = raw.trim();
    const [, place] = /^# In file: (.*)$/.exec(statement) ?? [];
    const [, number] = /^# +(\d+):$/.exec(statement) ?? [];
    const [, opened] = /^<([^/].*)>$/.exec(statement) ?? [];
    if (place !== undefined) file = place;
    else if (number !== undefined) line = number;
    else if (opened !== undefined) sections.push(opened);
    else if (statement.startsWith('</')) sections.pop();
    else if (statement !== '' && !statement.startsWith('#')) {
      const [, name = '', value = ''] = /^(\S+)\s*(.*)$/.exec(statement) ?? [];
      directives.push({ name, value, sections: [...sections], where: `${file}:${line}` });
    }
  }
  return directives;
}

/** Splits `/webjob/ "/usr/local/apache/webjob/"` into its arguments, without quotes. */
export function splitArguments(value: string): string[] {
  return [...value.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare ?? '');
}
