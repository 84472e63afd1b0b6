// webjobctl sign assignment: signs a command with its arguments, clients and times, on a machine
// other than the server.
import { Command, InvalidArgumentError } from 'commander';
import { parseDuration } from '../../cli/durations.ts';
import { printJson, printLine, safeLine } from '../../cli/output.ts';
import { type Groups, membersOf } from '../../fleet/groups.ts';
import { ASSIGNMENT_SUFFIX } from '../../fleet/signed.ts';
import { readGroups, readGroupsFile } from '../../ledger/groups.ts';
import { describeSigned, isAssignmentFile, signAssignment, writeAssignment } from '../../sign/assignments.ts';
import { readNoteSigner, readPrivateKey } from '../../sign/keys.ts';
import { endSigned } from '../fleet/assigning.ts';
import {
  checkArguments,
  checkCron,
  collectTargets,
  parseCommand,
  parseFuture,
  type TimeOptions,
  timesOf,
} from '../fleet/options.ts';
import { findPropertiesFile, globalOptions, readSite } from '../site/site.ts';

interface Options extends TimeOptions {
  output: string;
  key: string;
  keyName?: string;
  client: string[];
  groups?: string;
}

const EXPLANATION = `
The file contains the command, its arguments, its clients and its times. Clients with DsvVerifyManifest=Y run an assignment
only when keys that they trust have signed it for them, and only once for each due time. Without --until it ends 30 days
after its first time, or with --every and --cron after a year. Other signers add their signatures with "webjobctl sign
add"; then copy the file to the server: "webjobctl assign --signed FILE". Arguments that begin with - follow a --.

Clients do not know the groups of a site, so a group is replaced with its current members: those in --groups FILE, a copy
of the server's nph-webjob/groups, or, on a machine with a site, those of this site.

Examples:
  webjobctl sign assignment --key alice.key --client 'web-*' -o collect.assignment -- collect.sh -v
  webjobctl sign assignment --key alice.key --client web --groups groups -o collect.assignment -- collect.sh -v

Exit codes:
  0  signed
  2  wrong command line
  4  a key or a file cannot be read, used or written`;

export function assignmentCommand(): Command {
  return new Command('assignment')
    .description('sign an assignment, for clients that run only signed assignments')
    .argument('<COMMAND>', 'its name in the profiles', parseCommand)
    .argument('[ARGUMENT...]', 'its arguments')
    .requiredOption('-o, --output <FILE>', `the file to write; its name ends in ${ASSIGNMENT_SUFFIX}`, checkOutput)
    .requiredOption('--key <FILE>', 'the private key, Ed25519')
    .requiredOption(
      '--client <CLIENT>',
      'clients, globs or groups, separated by commas; may be repeated',
      collectTargets,
    )
    .option('--groups <FILE>', 'the groups of the site (default: those of the site on this machine)')
    .option('--key-name <NAME>', 'the name of the key (default: the name in KEY.vkey, or of the file)')
    .option('--once', 'once for each client (the default)')
    .option('--every <DURATION>', 'repeat at this interval: 10m, 1h, 7d', parseDuration)
    .option('--cron <EXPRESSION>', 'five fields of crontab(5), in UTC', checkCron)
    .option('--not-before <TIME>', 'the first due time (default: now)', parseFuture)
    .option('--until <TIME>', 'no client runs it after this time', parseFuture)
    .addHelpText('after', EXPLANATION)
    .action((name: string, args: string[], options: Options, command: Command) => sign(command, name, args, options));
}

function sign(command: Command, name: string, args: string[], options: Options): void {
  checkArguments(args);
  const { key, keyName, output } = options;
  const clients = [...membersOf(findGroups(command, options), options.client)];
  const times = timesOf(options, Math.floor(Date.now() / 1000));
  const { schedule, from, until = endSigned(times) } = times;
  const [notBefore, notAfter] = [new Date(from * 1000), new Date(until * 1000)];
  const text = { command: name, args, clients, schedule, notBefore, notAfter, serial: Date.now() };
  const signed = signAssignment(text, readNoteSigner(key, readPrivateKey(key), keyName));
  writeAssignment(output, signed.note);
  if (globalOptions(command).json) printJson({ file: output, ...describeSigned(signed) });
  else printLine(safeLine(output));
}

/**
 * Reads the groups that the clients may name. Throws Failure `failed`, and `settings` for a site
 * that cannot be read.
 */
function findGroups(command: Command, { groups, client }: Options): Groups {
  if (groups !== undefined) return readGroupsFile(groups);
  // A name with a wildcard cannot be that of a group, and most signers have no site.
  if (client.every((word) => /[*?]/.test(word))) return new Map();
  const propertiesFile = findPropertiesFile(command);
  return propertiesFile === undefined ? new Map() : readGroups(readSite(propertiesFile).settings);
}

function checkOutput(path: string): string {
  if (isAssignmentFile(path)) return path;
  throw new InvalidArgumentError(`its name ends in ${ASSIGNMENT_SUFFIX}.`);
}
