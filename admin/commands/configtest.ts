// webjobctl configtest: the counterpart of apachectl configtest for a whole site.
import { existsSync, readFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { Command } from 'commander';
import { DEFAULT_FILES } from '../../cgi/settings.ts';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { paint, printJson, printLine, safeLine } from '../../cli/output.ts';
import { quote } from '../../cli/shell.ts';
import { checkCertificates } from '../configtest/certificates.ts';
import { checkCheckpoints } from '../configtest/checkpoints.ts';
import {
  checkAccess,
  checkDirectives,
  checkModules,
  checkScriptFolder,
  findScriptFolders,
} from '../configtest/directives.ts';
import { error, type Finding, note, SEVERITIES } from '../configtest/finding.ts';
import { checkFleet } from '../configtest/fleet.ts';
import {
  type AskedHttpd,
  askConfigurationFile,
  askHttpd,
  type Directive,
  type Httpd,
  splitArguments,
} from '../configtest/httpd.ts';
import { checkIdentities } from '../configtest/identities.ts';
import { type AccessKind, type Mends, makeMends } from '../configtest/mends.ts';
import { checkServerNames, findNameProblem } from '../configtest/names.ts';
import { checkNodes } from '../configtest/nodes.ts';
import { checkPlaces } from '../configtest/places.ts';
import { probe } from '../configtest/probe.ts';
import { checkPrograms } from '../configtest/programs.ts';
import { checkScripts } from '../configtest/script.ts';
import { checkControls, placeOf } from '../configtest/settings.ts';
import { checkTree } from '../configtest/tree.ts';
import { checkView } from '../configtest/view.ts';
import { findWays } from '../configtest/ways.ts';
import { probeWays } from '../configtest/ways-probe.ts';
import { shippedText } from '../site/shipped.ts';
import { findPropertiesFile, globalOptions } from '../site/site.ts';
import { findUser, findWebUser, isRoot, type User } from '../site/users.ts';

interface Options {
  httpd?: string;
  httpdConf?: string;
  webUser?: string;
  probe?: string;
  as?: string;
}

const EXPLANATION = `
Checks every setting and override, the directories, logs and programs, free space, the script and its Node, httpd's
modules and effective directives, access, names and dates of certificates, job ids and the clock. As root it also
writes, reads and runs files as the web user. Each finding says what is wrong and where, with a command that corrects
it; the worst findings come first. Without errors and warnings the last line is Syntax OK.

It finds every path to the script: virtual hosts, aliases, links, copies. It sends a request without credentials to the
local httpd by each path, over HTTP or TLS, and expects httpd's own refusal.

--probe sends requests to the server itself, as the client of a webjob.conf: a request without credentials must be
refused; a link test, a GET and a PUT must succeed. The PUT leaves a small job, webjobctl-probe, in the locker.

Examples:
  webjobctl configtest
  webjobctl configtest --probe https://webjob.example.com --as client1/webjob.conf

Exit codes:
  0  Syntax OK
  1  errors or warnings
  2  wrong command line
  4  webjob.conf, or a program that was run, cannot be used`;

export function configtestCommand(): Command {
  return (
    new Command('configtest')
      .description('check the whole site: settings, directories, script, httpd, certificates')
      .option('--httpd <PROGRAM>', 'the httpd or apachectl to run (default: the first in PATH)')
      // httpd would resolve a relative path against its ServerRoot.
      .option('--httpd-conf <FILE>', 'the configuration that httpd reads', (file: string) => resolve(file))
      .option('--web-user <USER>', 'the user that runs scripts (default: that of httpd, or the usual one)')
      .option('--probe <URL>', 'send test requests to the server (with --as)')
      .option('--as <FILE>', 'the webjob.conf of the client that sends the requests')
      .addHelpText('after', EXPLANATION)
      .action(async (options: Options, command: Command) => {
        const { json } = globalOptions(command);
        report(await testSite(command, options), json === true);
      })
  );
}

async function testSite(command: Command, options: Options): Promise<Finding[]> {
  if ((options.probe === undefined) !== (options.as === undefined))
    throw new Failure('usage', '--probe and --as must be given together');
  const propertiesFile = resolve(findPropertiesFile(command) ?? DEFAULT_FILES[0] ?? '');
  const etcDirectory = dirname(propertiesFile);
  const { settings, given, findings } = checkControls(propertiesFile);
  const asked = askHttpd(options.httpd, options.httpdConf);
  const { directives } = asked.httpd ?? {};
  const mends = makeMends({
    propertiesFile,
    etcDirectory,
    shippedText,
    httpd: {
      ...(asked.program && { httpd: asked.program }),
      ...(options.httpdConf && { httpdConf: options.httpdConf }),
    },
    httpdConf: findHttpdConf(asked),
  });
  const user = findScriptUser(options.webUser, asked.httpd);
  const folders = findFolders(asked.httpd, propertiesFile);
  const ways = directives && findWays(directives);
  const misplaced = checkPlaces(settings, given, propertiesFile);
  findings.push(...asked.findings, ...misplaced.findings);
  findings.push(...checkTree(settings, propertiesFile, user, misplaced.folders));
  if (!misplaced.folders.has('ProfilesDirectory')) findings.push(...checkPrograms(settings, user));
  if (folders.length === 0)
    findings.push(error('no ScriptAlias leads to the script', 'httpd', findInclude(etcDirectory, mends)));
  let isByPassword = false;
  for (const folder of folders) {
    const moved = directives && checkScriptFolder(directives, folder, mends);
    if (moved) {
      findings.push(moved);
      continue;
    }
    const access = checkAccess(folder, user, findAccessKind(directives), mends);
    isByPassword ||= access.isByPassword;
    findings.push(...checkScripts(folder, user), ...access.findings);
    if (access.findings.length === 0) {
      const place = (key: string): string => placeOf(given, key, propertiesFile);
      findings.push(...checkIdentities({ settings, access, directives, ways, mends, placeOf: place }));
    }
    if (directives) findings.push(...checkDirectives(directives, folder, mends));
  }
  if (directives && ways)
    findings.push(...checkServerNames(directives, ways, mends), ...(await probeWays(ways, mends)));
  if (asked.httpd) findings.push(...checkModules(asked.httpd, settings, isByPassword, mends));
  findings.push(...checkCertificates(etcDirectory, directives, mends), ...checkNodes(settings));
  findings.push(...checkCheckpoints(settings, mends), ...checkFleet(settings, mends));
  if (directives) findings.push(...(await checkView(settings, directives)));
  if (options.probe !== undefined && options.as !== undefined) {
    const explainMissing = (url: URL): Finding | undefined =>
      directives && ways && findNameProblem(url, directives, ways, mends);
    const errorLog = findErrorLog(directives);
    findings.push(...(await probe(options.probe, options.as, { settings, errorLog, mends, explainMissing })));
  } else findings.push(note('no client has tested it', 'httpd', 'webjobctl configtest --probe URL --as webjob.conf'));
  return findings;
}

/** The kind of .htaccess that fits the certificates for which httpd asks. */
function findAccessKind(directives: readonly Directive[] | undefined): AccessKind {
  const asked = directives?.find(({ name }) => name === 'SSLVerifyClient')?.value.toLowerCase();
  if (asked === 'require') return 'apache/htaccess-certificates';
  return asked === 'optional' ? 'apache/htaccess-either' : 'apache/htaccess';
}

function findHttpdConf({ conf, program }: AskedHttpd): string {
  return conf ?? (program === undefined ? undefined : askConfigurationFile(program)) ?? '/etc/apache2/apache2.conf';
}

function findErrorLog(directives: readonly Directive[] | undefined): string | undefined {
  const [path = ''] = splitArguments(directives?.find(({ name }) => name === 'ErrorLog')?.value ?? '');
  return path.startsWith('/') ? path : undefined;
}

/** The steps that make httpd read the site, for its layout: made by init, or by hand. */
function findInclude(etcDirectory: string, { addDirectives, reload }: Mends): string {
  if (existsSync('/etc/apache2/conf-available/webjob.conf') && etcDirectory === '/etc/webjob')
    return `a2enconf webjob && ${reload}`;
  const file = ['webjob-site.conf', 'webjob.conf']
    .map((name) => join(etcDirectory, name))
    .find((path) => existsSync(path));
  return file === undefined
    ? `webjobctl init --prefix ${quote(dirname(etcDirectory))}`
    : addDirectives(`Include ${file}`);
}

function findScriptUser(given: string | undefined, httpd: Httpd | undefined): User {
  const named = given ?? httpd?.userName;
  if (named !== undefined && (given !== undefined || isRoot())) {
    const user = findUser(named);
    if (user) return user;
    throw new Failure('failed', `there is no user ${named}`, '--web-user USER');
  }
  if (isRoot()) return findWebUser(undefined);
  const { username, uid, gid } = userInfo();
  return { name: username, uid, gid };
}

/**
 * The script's directories according to httpd or, if it cannot be asked, according to the usual
 * files.
 */
function findFolders(httpd: Httpd | undefined, propertiesFile: string): string[] {
  if (httpd?.directives) return findScriptFolders(httpd.directives, propertiesFile);
  const etcDirectory = dirname(propertiesFile);
  const siteFiles = [join(etcDirectory, 'webjob-site.conf'), '/etc/apache2/conf-available/webjob.conf'];
  const defined = siteFiles
    .filter((file) => existsSync(file))
    .flatMap((file) => /^Define WEBJOB_CGI_DIRECTORY "?([^"\n]+)"?$/m.exec(readFileSync(file, 'utf8'))?.[1] ?? []);
  return [...defined, '/usr/local/apache/webjob'].filter((folder) => existsSync(folder)).slice(0, 1);
}

function report(findings: readonly Finding[], isJson: boolean): void {
  const sorted = SEVERITIES.flatMap((severity) => findings.filter((finding) => finding.severity === severity));
  for (const finding of sorted) {
    if (isJson) printJson(finding);
    else show(finding);
  }
  if (sorted.some(({ severity }) => severity !== 'note')) process.exitCode = EXIT_CODES.findings;
  else if (!isJson) printLine('Syntax OK');
}

const COLOURS = { error: 'red', warning: 'yellow', note: 'dim' } as const;

function show({ severity, what, where, remedy }: Finding): void {
  printLine(`${paint(severity, COLOURS[severity])}: ${safeLine(what)} (${safeLine(where)})`);
  if (remedy !== '') printLine(`  ${safeLine(remedy)}`);
}
