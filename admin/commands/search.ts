// webjobctl search: finds a text in the output of clients.
import { Command, InvalidArgumentError } from 'commander';
import { STREAMS, type StreamName } from 'webjob-locker';
import { encodeField, matchesGlob } from 'webjob-protocol';
import { listPacks, type Pack, readGroups } from '../../archive/packs.ts';
import { drained } from '../../cli/drained.ts';
import { parseInstant } from '../../cli/durations.ts';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { paint, printJson, printLine, safeLine, startProgress, warn } from '../../cli/output.ts';
import { findCandidates } from '../../ledger/candidates.ts';
import { siteJson } from '../../ledger/fields.ts';
import { makeClientFilter } from '../../ledger/groups.ts';
import { findStreams, packedStreams, type Stored } from '../../ledger/streams.ts';
import { parseLimit } from '../jobs/options.ts';
import { type Identities, identityOption, readIdentities, unsealNamed } from '../jobs/sealed.ts';
import { compileSearch, type Hit, searchLines, textsOf } from '../search/lines.ts';
import { clientOption } from '../site/client-option.ts';
import { globalOptions, openSites, type Site } from '../site/site.ts';

interface Options {
  in?: readonly StreamName[];
  client?: string;
  command?: string;
  since?: Date;
  until?: Date;
  limit?: number;
  identity?: string;
}

const EXPLANATION = `
Searches the streams of every upload in the locker, complete or not, and in archives. Between slashes TEXT is a regular
expression of JavaScript, /error: \\d+/ or, ignoring case, /error/i. Lines of more than 65536 characters are truncated.
With an index (webjobctl index), only uploads are read that contain every three-letter sequence of the text, or of the
expression outside brackets and alternatives, and uploads that are new or changed. Sealed streams are searched only with
--identity.

Examples:
  webjobctl search 'Permission denied' --in err --since 24h
  webjobctl search '/^root:[^*!x]/' --command passwd.sh
  webjobctl --json search segfault | jq -r .jobId | sort -u

Exit codes:
  0  found
  1  not found
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the locker, or a part of an archive, cannot be read`;

export function searchCommand(): Command {
  return new Command('search')
    .description('search the output of jobs')
    .argument('<TEXT>', 'a text, /re/ or /re/i')
    .option('--in <STREAMS>', 'out, err, env: one, or several with commas (default: all)', parseStreams)
    .addOption(clientOption())
    .option('--command <COMMAND>', 'only these commands, separated by commas')
    .option(
      '--since <TIME>',
      'only uploads since: 2026-11-01, "2026-11-01 12:00", or a duration as in 24h',
      parseInstant,
    )
    .option('--until <TIME>', 'only uploads until then, in the same form', parseInstant)
    .option('--limit <NUMBER>', 'stop after this many lines', parseLimit)
    .addOption(identityOption())
    .addHelpText('after', EXPLANATION)
    .action((text: string, options: Options, command: Command) =>
      search(openSites(command), text, options, globalOptions(command).json === true),
    );
}

/** An upload to be searched, in the locker or in an archive. */
interface Picked {
  site: Site;
  name: string;
  facts: { clientId?: string | undefined; command?: string | undefined };
  jobId(): string | undefined;
  stored(): Stored;
}

async function search(sites: readonly Site[], text: string, options: Options, isJson: boolean): Promise<void> {
  const matches = makeMatcher(text);
  const identities = await readIdentities(options.identity);
  const progress = startProgress('uploads searched');
  let count = 0;
  const gaps = new Set<string>();
  const passOver: PassOver = (error) => {
    if (!(error instanceof Failure)) throw error;
    if (!gaps.has(error.message)) warn(`skipped: ${error.message}`);
    gaps.add(error.message);
  };
  for await (const { site, name, facts, jobId, stored } of pickAll(sites, text, options, passOver)) {
    if (count === 0) progress.advance();
    for await (const { stream, hit } of searchStreams(stored(), options.in ?? STREAMS, identities, matches, passOver)) {
      if (count++ === 0) progress.end();
      printHit({ ...facts, site, jobId: jobId(), group: name, stream, ...hit }, isJson);
      await drained();
      if (count === options.limit) return;
    }
  }
  if (count === 0) progress.end();
  if (gaps.size > 0) throw new Failure('failed', 'skipped parts were not searched', 'webjobctl verify');
  if (count === 0) process.exitCode = EXIT_CODES.findings;
}

/**
 * Skips a damaged archive, so that it does not hide the contents of the others. Rethrows anything
 * but a Failure.
 */
type PassOver = (error: unknown) => void;

function makeMatcher(text: string): (line: string) => boolean {
  if (text === '') throw new Failure('usage', 'the text is empty');
  try {
    return compileSearch(text);
  } catch (error) {
    throw new Failure('usage', (error as SyntaxError).message);
  }
}

/** Yields the uploads that the options select, site by site. */
async function* pickAll(
  sites: readonly Site[],
  text: string,
  options: Options,
  passOver: PassOver,
): AsyncGenerator<Picked> {
  for (const site of sites) {
    yield* pickGroups(site, text, options);
    for (const pack of listPacks(site.settings)) {
      try {
        yield* pickPacked(site, pack, options);
      } catch (error) {
        passOver(error);
      }
    }
  }
}

async function* pickPacked(site: Site, pack: Pack, options: Options): AsyncGenerator<Picked> {
  const isWanted = makeFilter(site, options);
  for (const group of readGroups(pack)) {
    const { name, jobId, clientId, command } = group;
    if (!isWanted({ clientId, command }, () => new Date(group.at))) continue;
    yield {
      site,
      name,
      facts: { clientId, command },
      jobId: () => encodeField(jobId),
      stored: () => packedStreams(pack, group),
    };
  }
}

async function* pickGroups(site: Site, text: string, options: Options): AsyncGenerator<Picked> {
  const isWanted = makeFilter(site, options);
  // The index does not contain sealed streams.
  const texts = options.identity === undefined ? textsOf(text) : [];
  for (const { name, group, facts, jobId, at } of await findCandidates(site, texts))
    if (isWanted(facts(), at)) yield { site, name, facts: facts(), jobId, stored: () => findStreams(site, group) };
}

function makeFilter(
  site: Site,
  { client, command, since, until }: Options,
): (facts: Picked['facts'], at: () => Date | undefined) => boolean {
  const clients = makeClientFilter(site, client ?? '*');
  return (facts, findTime) => {
    const isNamed = clients.includes(facts.clientId) && matchesGlob(command ?? '*', facts.command ?? '-');
    if (!isNamed) return false;
    if (!since && !until) return true;
    const at = findTime();
    return at !== undefined && (!since || at >= since) && (!until || at <= until);
  };
}

async function* searchStreams(
  stored: Stored,
  names: readonly StreamName[],
  identities: Identities | undefined,
  matches: (line: string) => boolean,
  passOver: PassOver,
): AsyncGenerator<{ stream: StreamName; hit: Hit }> {
  for (const stream of names) {
    if (!stored[stream]?.bytes) continue;
    try {
      const found = stream === 'env' ? stored.env : await unsealNamed(stored, stream, identities);
      if (!found) continue;
      for await (const hit of searchLines(found.read(), matches)) yield { stream, hit };
    } catch (error) {
      passOver(error);
    }
  }
}

interface Found extends Hit {
  site: Site;
  clientId?: string | undefined;
  command?: string | undefined;
  jobId: string | undefined;
  group: string;
  stream: StreamName;
}

/**
 * The maximum number of characters of a line on a terminal or in a pipe; JSON has the whole line.
 */
const MAX_SHOWN_LENGTH = 1000;

function printHit({ site, clientId, command, jobId, group, stream, line, text }: Found, isJson: boolean): void {
  if (isJson) {
    const facts = { jobId: jobId ?? null, client: clientId ?? null, command: command ?? null };
    printJson({ ...siteJson(site), ...facts, group, stream, line, text });
    return;
  }
  const place = `${clientId ?? '-'} ${command ?? '-'} ${jobId ?? '-'} ${stream}:${line}:`;
  const shown = text.length > MAX_SHOWN_LENGTH ? `${text.slice(0, MAX_SHOWN_LENGTH)}…` : text;
  printLine(`${paint(safeLine(place), 'dim')} ${safeLine(shown)}`);
}

function parseStreams(text: string): StreamName[] {
  const names = text.split(',');
  const isStream = (name: string): name is StreamName => (STREAMS as readonly string[]).includes(name);
  if (!names.every(isStream)) throw new InvalidArgumentError('streams are out, err and env.');
  return names;
}
