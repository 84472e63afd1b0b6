// webjobctl client list: lists the clients, their credentials, and when these end.
import { Command } from 'commander';
import { countOf } from '../../cli/counts.ts';
import { parseDuration } from '../../cli/durations.ts';
import { EXIT_CODES } from '../../cli/failure.ts';
import { formatTable, printJson, printLine } from '../../cli/output.ts';
import { type Certificate, daysLeft, findLatest, listCertificates } from '../clients/certificates.ts';
import { type Context, type ContextOptions, openContext, userFileOption } from '../clients/context.ts';
import { listProfiles } from '../clients/profiles.ts';
import { readUserFile, type UserLine } from '../clients/userfile.ts';

interface Options extends ContextOptions {
  expiring?: number;
}

export interface ClientRow {
  client: string;
  password: UserLine['scheme'] | undefined;
  /** The certificate that the client uses. */
  certificate: Certificate | undefined;
  hasProfile: boolean;
}

const EXPLANATION = `
Lists every client that has a password, a certificate from the site CA, or a profile directory. With --expiring it
lists only clients whose certificate expires within that time or has expired, and exits with 1 when there are any.

Examples:
  webjobctl client list
  webjobctl client list --expiring 30d

Exit codes:
  0  listed
  1  no clients; with --expiring: certificates that expire
  2  wrong command line
  3  nph-webjob.cfg cannot be used
  4  the user file or the CA cannot be read`;

export function listCommand(): Command {
  return new Command('list')
    .description('list the clients')
    .option(
      '--expiring <DURATION>',
      'only clients whose certificate expires within this time, as in 30d',
      parseDuration,
    )
    .addOption(userFileOption())
    .addHelpText('after', EXPLANATION)
    .action((options: Options, command: Command) => list(openContext(command), options));
}

function list(context: Context, { expiring }: Options): void {
  const end = expiring === undefined ? undefined : Date.now() + expiring * 1000;
  const rows = findClients(context).filter(
    ({ certificate }) => end === undefined || (certificate !== undefined && certificate.until.getTime() <= end),
  );
  if ((expiring === undefined) === (rows.length === 0)) process.exitCode = EXIT_CODES.findings;
  if (context.isJson) for (const row of rows) printJson(describeClient(row));
  else if (rows.length > 0) for (const line of formatTable(rows, COLUMNS)) printLine(line);
}

const COLUMNS = [
  { title: 'CLIENT', value: ({ client }: ClientRow) => client },
  { title: 'PASSWORD', value: ({ password }: ClientRow) => password ?? '-' },
  { title: 'PROFILE', value: ({ hasProfile }: ClientRow) => (hasProfile ? 'yes' : '-') },
  { title: 'CERTIFICATE', value: ({ certificate }: ClientRow) => (certificate ? formatEnd(certificate) : '-') },
];

/** `2027-11-24, 365 days` */
export function formatEnd({ until, state }: Certificate): string {
  return `${until.toISOString().slice(0, 10)}, ${state === 'valid' ? countOf(daysLeft(until), 'day') : state}`;
}

/** The row in the form that --json prints. */
export function describeClient({ client, password, certificate, hasProfile }: ClientRow): Record<string, unknown> {
  return {
    client,
    password: password ?? null,
    profile: hasProfile,
    certificate: certificate ? describeCertificate(certificate) : null,
  };
}

export function describeCertificate({ serial, from, until, state }: Certificate): Record<string, unknown> {
  return { serial, from: from.toISOString(), until: until.toISOString(), daysLeft: daysLeft(until), state };
}

/** All clients by name. Throws Failure `failed`. */
export function findClients({ settings, etcDirectory, userFile }: Context): ClientRow[] {
  const users = readUserFile(userFile);
  const certificates = listCertificates(etcDirectory);
  const profiles = new Set(listProfiles(settings));
  const schemes = new Map(users.map(({ name, scheme }) => [name, scheme]));
  const certified = certificates.filter(({ state }) => state !== 'revoked').map(({ client }) => client);
  const names = [...new Set([...users.map(({ name }) => name), ...certified, ...profiles])].sort();
  return names.map((client) => ({
    client,
    password: schemes.get(client),
    certificate: findLatest(certificates, client),
    hasProfile: profiles.has(client),
  }));
}
