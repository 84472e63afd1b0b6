// webjobctl show: shows one job and its output.
import { once } from 'node:events';
import { StringDecoder } from 'node:string_decoder';
import { Command } from 'commander';
import { STREAMS, type StreamName } from 'webjob-locker';
import { formatTime, isJobId } from 'webjob-protocol';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { formatBytes, paint, printJson, safeLine, safeText, say } from '../../cli/output.ts';
import { type Output, openOutput } from '../../cli/pager.ts';
import { type Act, actJson, isHeld } from '../../evidence/acts.ts';
import { readActs } from '../../ledger/acts.ts';
import { describeClockSkew } from '../../ledger/clock.ts';
import { readRecordFields } from '../../ledger/ending.ts';
import { describeDiffering, describeExit, describePlace, jobJson, lineJson } from '../../ledger/fields.ts';
import type { Job } from '../../ledger/job.ts';
import { findJobStreams, readPackedRecord, type Stored, type StoredStream } from '../../ledger/streams.ts';
import { describeSealing } from '../../notes/result.ts';
import { formatDump, isBinary } from '../../pages/stream.ts';
import { findJob } from '../jobs/lookup.ts';
import { findRecipients, type Identities, identityOption, readIdentities, unsealAll } from '../jobs/sealed.ts';
import { type JobVerification, verifyShown } from '../jobs/verification.ts';
import { clientOption } from '../site/client-option.ts';
import { openSitesOrLedger } from '../site/ledger.ts';
import { globalOptions, type Site } from '../site/site.ts';

interface Options {
  client?: string;
  out?: true;
  err?: true;
  env?: true;
  all?: true;
  identity?: string;
}

const EXPLANATION = `
The beginning or the end of a job id is enough if it is unique. On a terminal the output goes through PAGER (default:
less). Control characters are escaped, as \\x1b; only the beginning of binary output is shown, in hex. With one of
--out, --err and --env, if standard output is not a terminal, the stream is written byte for byte.

Sealed streams are opened with --identity; without it they stay sealed.

Examples:
  webjobctl show server_1_1085355126_00723
  webjobctl show 00723 --out > host.out
  webjobctl --json show 00723 | jq -r .record.KidReason

Exit codes:
  0  shown
  1  there is no such job, it has no such stream, or its upload is missing
  2  wrong command line, or several jobs that match
  3  nph-webjob.cfg cannot be used
  4  the log or the locker cannot be read`;

export function showCommand(): Command {
  return new Command('show')
    .description('show one job and its output')
    .argument('<JOB>', 'job id, or its beginning or end')
    .option('--out', 'only stdout')
    .option('--err', 'only stderr')
    .option('--env', 'only the run record')
    .option('--all', 'show the job and all three streams')
    .addOption(clientOption('the client, if several sent the same job id'))
    .addOption(identityOption())
    .addHelpText('after', EXPLANATION)
    .action(async (jid: string, options: Options, command: Command) =>
      show(await openSitesOrLedger(command), jid, options, globalOptions(command).json === true),
    );
}

async function show(sites: readonly Site[], jid: string, options: Options, isJson: boolean): Promise<void> {
  const asked = STREAMS.filter((name) => options[name]);
  if (isJson && asked.length > 0)
    throw new Failure('usage', '--json shows no stream', 'webjobctl show JOB --out > FILE');
  const { site, job } = await findJob(sites, jid, options.client);
  if (job.state === 'missing') process.exitCode = EXIT_CODES.findings;
  if (site.remote && (asked.length > 0 || options.all)) throw elsewhere(site);
  const opened = await openJob(site, job, await readIdentities(options.identity));
  const { stored } = opened;
  const isStream = asked.length > 0 && !options.all;
  const bytes = STREAMS.reduce((sum, name) => sum + (stored[name]?.bytes ?? 0), 0);
  const verification = isStream || site.remote ? undefined : verifyShown(site, job, bytes);
  const acts = isStream || site.remote ? [] : readActs(site, job);
  if (isJson)
    printJson({
      ...jobJson(site, job),
      ...showJson(site, job, opened),
      verification: verification ?? null,
      acts: acts.map(actJson),
      page: pageOf(site, job) ?? null,
    });
  else if (asked.length === 1 && !process.stdout.isTTY && !options.all)
    await copyStream(opened, asked[0] ?? 'out', jid);
  else {
    const output = await openOutput();
    if (asked.length === 0 || options.all)
      await output.write(
        `${[...describeJob(site, job, opened, verification), ...describeActs(acts, site)].join('\n')}\n`,
      );
    const names = options.all ? STREAMS : asked.length > 0 ? asked : site.remote ? [] : (['out', 'err'] as const);
    for (const name of names)
      await showStream(output, name, stored[name], names.length > 1 || asked.length === 0, sealingOf(opened, name));
    await output.end();
  }
}

/** The failure for a job of a remote site: the database has its jobs, but not their output. */
function elsewhere({ label, settings }: Site): Failure {
  const where = `the streams of ${label} are in ${settings.incomingDirectory} at that site`;
  return new Failure('usage', where, 'run webjobctl show there, without --ledger');
}

/** Copies a stream byte for byte. */
async function copyStream(opened: Opened, name: StreamName, jid: string): Promise<void> {
  const stream = opened.stored[name];
  const sealing = sealingOf(opened, name);
  if (sealing !== undefined) say(`.${name} is ${sealing}`);
  if (!stream) throw new Failure('findings', `${jid} has no .${name}`);
  for await (const piece of stream.read()) if (!process.stdout.write(piece)) await once(process.stdout, 'drain');
}

/** The files of a job, in the locker or in an archive. */
interface Opened {
  stored: Stored;
  record: ReadonlyMap<string, string> | undefined;
  /** The archive that contains the files; undefined for files in the locker. */
  place: string | undefined;
  /** The recipients of sealed streams; undefined for streams that can be read. */
  recipients: readonly string[] | undefined;
}

async function openJob(site: Site, job: Job, identities: Identities | undefined): Promise<Opened> {
  if (site.remote) return { stored: {}, record: undefined, place: describePlace(job), recipients: undefined };
  const found = await findJobStreams(site, job);
  const record = job.group ? readRecordFields(site, job.group) : job.packed && (await readPackedRecord(found));
  const recipients = identities ? undefined : findRecipients(record);
  return {
    stored: unsealAll(found, record, identities),
    record,
    place: job.group ? undefined : describePlace(job),
    recipients,
  };
}

/** Describes the sealing of a stream; undefined for one that can be read. */
function sealingOf({ stored, recipients }: Opened, name: StreamName): string | undefined {
  const isSealed = recipients !== undefined && name !== 'env' && stored[name] !== undefined;
  return isSealed ? `${describeSealing(recipients)}; --identity FILE opens it, as age -d does` : undefined;
}

function showJson(site: Site, job: Job, { stored, record }: Opened): Record<string, unknown> {
  const bytes = Object.fromEntries(STREAMS.map((name) => [name, stored[name]?.bytes ?? null]));
  const attempts = job.attempts.map((line) => lineJson(site, line));
  return { attempts, bytes, record: record ? Object.fromEntries(record) : null };
}

/**
 * The page of the job in the view; undefined for a site without ViewURL, and for a job id that
 * would need escaping.
 */
function pageOf({ settings: { viewURL } }: Site, { jobId }: Job): string | undefined {
  if (viewURL === '' || jobId === undefined || !isJobId(jobId)) return undefined;
  return `${viewURL.replace(/\/+$/, '')}/job/${jobId}`;
}

/** The fields of the run record that get a line of their own. */
const RECORD_FACTS = [
  ...(['Hostname', 'SystemOS', 'Version', 'CommandLine', 'KidReason', 'GetError', 'RunError'] as const),
  ...(['RunEpoch', 'PutEpoch'] as const),
];

function describeJob(
  site: Site,
  job: Job,
  { stored, record, place, recipients }: Opened,
  verification: JobVerification | undefined,
): string[] {
  const { settings } = site;
  const request = (line: Job['get']): string | undefined =>
    line &&
    `${line.time}  ${line.status} ${line.message}  from ${line.remoteUser ?? '-'} at ${line.remoteAddress ?? '-'}`;
  const facts: (readonly [string, string | undefined])[] = [
    ...([
      ['Site', site.label],
      ['Job', job.jobId],
      ['Client', job.clientId],
      ['Command', job.command],
      ['State', job.state],
      ['Page', pageOf(site, job)],
    ] as const),
    ['Exit', describeExit(job)],
    ['Started by', job.outerId],
    ['Clock', job.clockSkew === undefined ? undefined : describeClockSkew(job.clockSkew)],
    ['Last seen', formatTime(job.at, settings.useGMT)],
    ...([
      ['GET', request(job.get)],
      ['PUT', request(job.put)],
      ...job.attempts.map((line): [string, string | undefined] => [`Also ${line.method}`, request(line)]),
      ['Files', job.group?.name],
      ['Archived in', place],
    ] as const),
    [
      'Other uploads',
      job.uploads
        .slice(0, -1)
        .map(({ name }) => name)
        .join(', ') || undefined,
    ],
    ['Differs', describeDiffering(job)],
    ['Left behind', job.left.filter((name) => name !== job.group?.name).join(', ') || undefined],
    ['Verification', verification && describeVerification(verification)],
    ['Signature', verification?.signature],
    ['Sealed', recipients && describeSealing(recipients)],
    ['Bytes', STREAMS.flatMap((name) => (stored[name] ? `${name} ${stored[name].bytes}` : [])).join(', ') || undefined],
    ...RECORD_FACTS.map((name): [string, string | undefined] => [name, record?.get(name)]),
  ];
  return facts.flatMap(([name, value]) =>
    value === undefined || value === 'NA' ? [] : [`${paint(`${name}:`.padEnd(15), 'bold')} ${safeLine(value)}`],
  );
}

/** The acts of operators on the job, above all notes. */
function describeActs(acts: readonly Act[], { settings }: Site): string[] {
  const lines = acts.map(({ event, kind, at, by, text }): string => {
    const what = kind === 'client' ? `${event} of the client` : event;
    return safeLine(`${formatTime(new Date(at), settings.useGMT)}  ${what} by ${by}: ${text}`);
  });
  const held = isHeld(acts) ? ['on hold'] : [];
  return [...held, ...lines].map((line, index) => `${paint((index === 0 ? 'Acts:' : '').padEnd(15), 'bold')} ${line}`);
}

/** `verified`, or the findings: `does not verify: size-changed client1_host.sh.out: …`. */
function describeVerification({ words, findings }: JobVerification): string {
  const found = findings.map(({ kind, place, detail }) => `${kind} ${place}: ${detail}`);
  return found.length === 0 ? words : `${words}: ${found.join('; ')}`;
}

const DUMP_BYTES = 512;

async function showStream(
  output: Output,
  name: StreamName,
  stream: StoredStream | undefined,
  hasTitle: boolean,
  sealing: string | undefined,
): Promise<void> {
  const size = stream ? formatBytes(stream.bytes) : 'not there';
  if (hasTitle) await output.write(`\n${paint(`--- ${name}: ${size}`, 'bold')}\n`);
  if (!stream) return;
  if (sealing !== undefined) return output.write(`${safeLine(sealing)}\n`);
  const decoder = new StringDecoder('utf8');
  let isFirst = true;
  let last = '\n';
  for await (const piece of stream.read()) {
    if (isFirst && isBinary(piece)) {
      await output.write(`${formatDump(piece.subarray(0, DUMP_BYTES))}\n`);
      return output.write(
        piece.length > DUMP_BYTES ? `binary: the first ${DUMP_BYTES} of ${stream.bytes} bytes\n` : '',
      );
    }
    isFirst = false;
    const text = safeText(decoder.write(piece));
    if (!output.isOpen()) return;
    await output.write(text);
    last = text.at(-1) ?? last;
  }
  await output.write(`${safeText(decoder.end())}${last === '\n' ? '' : '\n'}`);
}
