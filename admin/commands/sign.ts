// webjobctl sign: keys, signatures beside programs, and whether a client would take them.
import { Command } from 'commander';
import { keygenCommand } from './sign-keygen.ts';
import { payloadCommand } from './sign-payload.ts';
import { verifyCommand } from './sign-verify.ts';

export function signCommand(): Command {
  const command = new Command('sign')
    .description('make keys, sign programs, and check signatures, for clients with DsvVerifySignature=Y')
    .helpCommand(false)
    .addHelpText(
      'after',
      `
Example:
  webjobctl sign keygen /root/webjob

Exit codes: those of webjobctl; each command's own are in its help.`,
    );
  for (const make of [keygenCommand, payloadCommand, verifyCommand]) command.addCommand(make());
  return command;
}
