// webjobctl sign: keys, signatures and manifests for programs, and whether clients would accept
// them.
import { Command } from 'commander';
import { addCommand } from './sign-add.ts';
import { assignmentCommand } from './sign-assignment.ts';
import { keygenCommand } from './sign-keygen.ts';
import { payloadCommand } from './sign-payload.ts';
import { showCommand } from './sign-show.ts';
import { trustCommand } from './sign-trust.ts';
import { verifyCommand } from './sign-verify.ts';

export function signCommand(): Command {
  const command = new Command('sign')
    .description(
      'make keys, sign programs and assignments, and check signatures, for clients with DsvVerifyManifest=Y or DsvVerifySignature=Y',
    )
    .helpCommand(false)
    .addHelpText(
      'after',
      `
Example:
  webjobctl sign keygen /root/webjob

Exit codes: those of webjobctl; each command's own are in its help.`,
    );
  for (const make of [
    keygenCommand,
    payloadCommand,
    assignmentCommand,
    addCommand,
    showCommand,
    verifyCommand,
    trustCommand,
  ])
    command.addCommand(make());
  return command;
}
