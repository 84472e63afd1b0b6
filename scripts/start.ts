// npm start: demonstrates a complete job on a private site, and removes everything afterwards. With
// --keep the server stays.
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs, styleText } from 'node:util';
import { startEmbedded } from './embedded.ts';
import { type Server, startHttpd } from './httpd.ts';
import { findHttpd } from './httpd-package.ts';
import { addCommand, configure, makeSite, type Site, writeClientConf } from './site.ts';
import { MODULES_OF_VIEW, startView } from './view.ts';

const HELP = `Usage: npm start [-- --keep] [--embedded]

Shows a WebJob run from end to end: makes a private site in a temporary folder, serves it with this machine's httpd
(or, where there is none, with the embedded host), and lets client1 get, run and put host.sh.

  --keep      leave the server up until Ctrl-C, with the view and its acts, and print how to use it
  --embedded  use the embedded host even where there is an httpd
  --help      print this help

Exit codes: 0 the run is on the server; 1 it is not, or the command line is wrong; 130 and 143 ended by a signal.
`;

const root = join(import.meta.dirname, '..');
const webjob = join(root, 'dist', 'webjob');
const talk = (text: string): unknown => process.stderr.write(`${text}\n`);
const heading = (text: string): string =>
  process.stdout.isTTY && !process.env.NO_COLOR ? styleText('bold', text) : text;

async function main(): Promise<number> {
  const options = readOptions();
  if (options === undefined) return 1;
  if (options.help) {
    process.stdout.write(HELP);
    return 0;
  }
  execFileSync(process.execPath, [join(root, 'scripts', 'build.ts')], { stdio: ['ignore', 'inherit', 'inherit'] });
  const interrupted = waitForSignal();
  const site = makeSite();
  let server: Shown | undefined;
  try {
    server = await serve(site, options.embedded, options.keep);
    const conf = writeClientConf(site, server.url);
    const code = await Promise.race([showRun(site, conf), interrupted]);
    if (!options.keep || code !== 0) return code;
    await Promise.race([showMore(site, server, conf), interrupted]);
    explain(site, server, conf);
    return await interrupted;
  } finally {
    await server?.stop();
    site.remove();
  }
}

function readOptions(): { keep: boolean; embedded: boolean; help: boolean } | undefined {
  try {
    const flag = { type: 'boolean', default: false } as const;
    return parseArgs({ options: { keep: flag, embedded: flag, help: flag } }).values;
  } catch (error) {
    talk(`webjob: error: ${(error as Error).message}`);
    talk('webjob: hint: npm start -- --help');
    return undefined;
  }
}

/** The user of the view. */
const READER = { name: 'reader', password: 'webjob' };

interface Shown extends Server {
  /** The address of the view; undefined when there is none. */
  viewUrl?: string;
}

async function serve(site: Site, embedded: boolean, keep: boolean): Promise<Shown> {
  const program = embedded ? undefined : findHttpd();
  if (program) {
    talk(`webjob: serving ${site.root} with ${program.binary}`);
    if (!keep) return await startHttpd({ site, mpm: 'event', program });
    const way = 'mod_proxy_fcgi';
    const view = await startView({ site, way, readers: { [READER.name]: READER.password }, actors: [READER.name] });
    const server = await startHttpd({ site, mpm: 'event', program, modules: MODULES_OF_VIEW[way], after: view.lines });
    const acts = watchInbox(site);
    const stop = async (): Promise<void> => {
      await acts.stop();
      await server.stop();
      await view.stop();
    };
    return { ...server, stop, viewUrl: `${server.url}/webjob-view/` };
  }
  talk(`webjob: serving ${site.root} with the embedded host${embedded ? '' : ': this machine has no httpd'}`);
  return await startEmbedded(site);
}

/** Runs the client as in the article, and prints the results. */
async function showRun(site: Site, conf: string): Promise<number> {
  const args = ['--execute', '--file', conf, 'host.sh'];
  print(`$ webjob ${args.join(' ')}`);
  const code = await runClient(args);
  if (code !== 0) return 1;
  print(`\n${heading(basename(site.logFile))}`);
  print(readFileSync(site.logFile, 'utf8').trimEnd());
  print(`\n${heading('incoming')}`);
  const files = readdirSync(site.incoming).sort();
  for (const name of files) print(`${String(statSync(join(site.incoming, name)).size).padStart(5)}  ${name}`);
  for (const name of files.filter((file) => /\.(?:out|rdy|env)$/.test(file))) {
    print(`\n${heading(name)}`);
    print(readFileSync(join(site.incoming, name), 'utf8').trimEnd());
  }
  return 0;
}

const LOOK_MS = 200;

/**
 * Carries out the acts that the user of the view requests, as webjob-acts.path does under systemd.
 */
function watchInbox(site: Site): { stop(): Promise<void> } {
  const inbox = join(site.base, 'config', 'webjob-acts', 'inbox');
  let running: Promise<unknown> | undefined;
  const timer = setInterval(() => {
    if (running || !existsSync(inbox) || readdirSync(inbox).length === 0) return;
    running = runControl(site, 'acts').finally(() => {
      running = undefined;
    });
  }, LOOK_MS);
  return {
    stop: async () => {
      clearInterval(timer);
      await running;
    },
  };
}

async function runControl(site: Site, ...args: string[]): Promise<number> {
  return await run([join(root, 'dist', 'webjobctl'), '--config', site.propertiesFile, ...args], 'ignore');
}

/** Makes data for the view: two runs that differ, and an assignment that can be paused. */
async function showMore(site: Site, { viewUrl }: Shown, conf: string): Promise<void> {
  if (viewUrl === undefined) return;
  configure(site, { BatchCommand: 'batch' });
  addCommand(site, 'client1', 'disk.sh', '#!/bin/sh\necho "process $$ started $(date)"\ndf -k /\n');
  for (let count = 0; count < 2; count++) await run([webjob, '--execute', '--file', conf, 'disk.sh'], 'ignore');
  await runControl(site, 'assign', 'add', 'disk.sh', '--to', 'client1', '--every', '1h');
  await runControl(site, 'acts');
}

/** Asynchronous, because the embedded host serves the client from this very process. */
async function runClient(args: string[]): Promise<number> {
  return await run([webjob, ...args], 'inherit');
}

async function run(args: string[], output: 'inherit' | 'ignore'): Promise<number> {
  return await new Promise((resolve) => {
    spawn(process.execPath, args, { stdio: ['ignore', output, 'inherit'] })
      .on('error', () => resolve(1))
      .on('exit', (code) => resolve(code ?? 1));
  });
}

function explain(site: Site, server: Shown, conf: string): void {
  const view =
    server.viewUrl === undefined
      ? ''
      : `
  browser   ${server.viewUrl}  (${READER.name}, ${READER.password})`;
  print(`
${heading('The server stays up until Ctrl-C')}${view}
  client    ${webjob} --execute --file ${conf} host.sh
  by hand   curl -u client1:foo -H 'Content-Length: 0' '${server.url}/webjob/nph-webjob.cgi?VERSION=webjob+1.4.0&SYSTEM=any&CLIENTID=client1&FILENAME=host.sh'
  programs  ${join(site.profiles, 'client1', 'commands')}
  uploads   ${site.incoming}
  log       ${site.logFile}
  settings  ${site.propertiesFile}`);
}

/** Resolves with the exit code for the first signal; until then signals do not end the process. */
function waitForSignal(): Promise<number> {
  return new Promise((resolve) => {
    process
      .once('SIGINT', () => resolve(130))
      .once('SIGTERM', () => resolve(143))
      .once('SIGHUP', () => resolve(129));
  });
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

process.exitCode = await main();
