// The command line of webjobctl as data, read from commander: the basis of completions, and of the
// check of the man page.
import type { Command, Option } from 'commander';

export interface OptionRow {
  /** The forms of the option, such as `-c` and `--config`. */
  flags: string[];
  /** The metavar of the option's value; null for an option without a value. */
  value: string | null;
  choices: readonly string[];
  description: string;
}

export interface CommandRow {
  /** The name of the command, such as `client add`; empty for webjobctl itself. */
  name: string;
  description: string;
  arguments: { name: string; choices: readonly string[] }[];
  /** The options of the command, then those that may precede any command. */
  options: OptionRow[];
  /** The words that may follow: `add`, `list`. */
  commands: string[];
}

/** webjobctl itself, then every command followed by its subcommands. */
export function describeCommands(program: Command): CommandRow[] {
  const globals = program.options.map(describeOption).filter(({ flags }) => !flags.includes('--version'));
  const walk = (command: Command, name: string): CommandRow[] => {
    const help = command.createHelp();
    const children = command.commands.filter((child) => child.name() !== 'help');
    const own = help.visibleOptions(command).map(describeOption);
    const taken = own.flatMap(({ flags }) => flags);
    const row = {
      name,
      description: command.description(),
      arguments: command.registeredArguments.map((one) => ({ name: one.name(), choices: one.argChoices ?? [] })),
      options: [...own, ...globals.filter(({ flags }) => !flags.some((flag) => taken.includes(flag)))],
      commands: children.map((child) => child.name()),
    };
    return [row, ...children.flatMap((child) => walk(child, `${name} ${child.name()}`.trim()))];
  };
  return walk(program, '');
}

function describeOption(option: Option): OptionRow {
  return {
    flags: [option.short, option.long].filter((flag) => flag !== undefined),
    value: option.required || option.optional ? (/[<[](.+)[>\]]/.exec(option.flags)?.[1] ?? 'value') : null,
    choices: option.argChoices ?? [],
    description: option.description,
  };
}
