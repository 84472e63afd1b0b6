// webjobctl client show: shows everything that the site knows of one client.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { overrideClientSettings } from '../../cgi/overrides.ts';
import { readSettings } from '../../cgi/settings.ts';
import { EXIT_CODES, Failure } from '../../cli/failure.ts';
import { formatBytes, printJson, printLine, safeLine, say } from '../../cli/output.ts';
import { listCertificates } from '../clients/certificates.ts';
import { type Context, type ContextOptions, openContext, parseClientId, userFileOption } from '../clients/context.ts';
import { type ClientLimits, type Limit, readLimits } from '../clients/limits.ts';
import { describeResultKey, formatResultKey, listResultKeys } from '../clients/result-keys.ts';
import { findPropertiesFile } from '../site/site.ts';
import { profileOf } from './client-add.ts';
import { describeCertificate, describeClient, findClients, formatEnd } from './client-list.ts';

const EXPLANATION = `
Prints the limits of this client, overrides included, and its use of them: requests that run on this server, uploads
and bytes of today (UTC) on all servers. A client without limits has no such lines.

Example:
  webjobctl client show client1

Exit codes:
  0  shown
  1  there is no such client
  2  wrong command line
  3  nph-webjob.cfg, or the client's override, cannot be used
  4  the user file, the CA or LimitsDirectory cannot be read`;

export function showCommand(): Command {
  return new Command('show')
    .description('show one client')
    .argument('<CLIENT>', 'the client id', parseClientId)
    .addOption(userFileOption())
    .addHelpText('after', EXPLANATION)
    .action((name: string, _options: ContextOptions, command: Command) =>
      show(openContext(command), name, findPropertiesFile(command)),
    );
}

function show(context: Context, client: string, propertiesFile: string | undefined): void {
  const row = findClients(context).find((candidate) => candidate.client === client);
  if (!row) {
    say(`there is no client ${client}`);
    process.exitCode = EXIT_CODES.findings;
    return;
  }
  const resultKeys = listResultKeys(context, client);
  const certificates = listCertificates(context.etcDirectory).filter((certificate) => certificate.client === client);
  const commands = findCommands(profileOf(context, client));
  const limits = findLimits(context, client, propertiesFile);
  if (context.isJson) {
    printJson({
      ...describeClient(row),
      certificates: certificates.map(describeCertificate),
      commands,
      limits,
      resultKeys: resultKeys.map(describeResultKey),
    });
    return;
  }
  printLine(`client       ${client}`);
  printLine(`password     ${row.password ?? '-'}`);
  for (const certificate of certificates) printLine(`certificate  ${certificate.serial}  ${formatEnd(certificate)}`);
  for (const key of resultKeys) printLine(`result key   ${formatResultKey(key)}`);
  printLine(`profile      ${row.hasProfile ? profileOf(context, client) : '-'}`);
  for (const command of commands) printLine(`command      ${safeLine(command)}`);
  for (const line of formatLimits(limits)) printLine(line);
}

/** The limits by the settings that apply to this client. Throws Failure. */
function findLimits({ settings }: Context, client: string, propertiesFile: string | undefined): ClientLimits {
  let own = settings;
  try {
    own = overrideClientSettings(settings, readSettings(propertiesFile).given, client);
  } catch (error) {
    throw new Failure('settings', `the override of ${client}: ${(error as Error).message}`, 'webjobctl configtest');
  }
  return readLimits(own, client);
}

/** An upload in progress is counted with all of its bytes. */
function formatLimits({ requests, uploads, bytes }: ClientLimits): string[] {
  const format = (
    title: string,
    limit: Limit | null,
    when: string,
    count: (value: number) => string = String,
  ): string[] => (limit ? [`${title.padEnd(12)} ${count(limit.used)} of ${count(limit.limit)} ${when}`] : []);
  return [
    ...format('requests', requests, 'at once'),
    ...format('uploads', uploads, 'today (UTC)'),
    ...format('bytes', bytes, 'today (UTC)', formatBytes),
  ];
}

/** The commands in the order in which a GET finds them. */
function findCommands(profile: string): string[] {
  return [join(profile, 'commands'), profile]
    .filter((folder) => existsSync(folder))
    .flatMap((folder) => readdirSync(folder, { withFileTypes: true }))
    .filter((entry) => !entry.isDirectory())
    .map(({ name }) => name);
}
