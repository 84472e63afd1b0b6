// webjobctl completion: prints the script by which a shell completes webjobctl.
import { Argument, Command } from 'commander';
import { Failure } from '../../cli/failure.ts';
import { printJson } from '../../cli/output.ts';
import { formatCompletion, SHELLS } from '../completion/scripts.ts';
import { describeCommands } from '../completion/tree.ts';
import { globalOptions } from '../site/site.ts';

const EXPLANATION = `
The completion knows every command and option of this webjobctl. With --json it is printed as data, one command a line.

Examples:
  webjobctl completion bash > /etc/bash_completion.d/webjobctl
  webjobctl completion zsh > /usr/local/share/zsh/site-functions/_webjobctl
  webjobctl completion fish > ~/.config/fish/completions/webjobctl.fish

Exit codes:
  0  printed
  2  wrong command line`;

export function completionCommand(): Command {
  return new Command('completion')
    .description('print a completion for a shell')
    .addArgument(new Argument('[SHELL]', 'which one').choices(SHELLS))
    .addHelpText('after', EXPLANATION)
    .action((shell: (typeof SHELLS)[number] | undefined, _options: object, command: Command) => {
      const rows = describeCommands(command.parent ?? command);
      if (globalOptions(command).json) for (const row of rows) printJson(row);
      else if (shell === undefined) throw new Failure('usage', `name a shell: ${SHELLS.join(', ')}`);
      else process.stdout.write(formatCompletion(shell, rows));
    });
}
