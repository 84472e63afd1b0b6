// The command line of webjobctl in this process, as far as it goes before a command runs: what it explains, and what it refuses.
import assert from 'node:assert/strict';
import { type Command, CommanderError } from 'commander';
import { makeProgram } from '../admin/program.ts';

// What the build puts in their place.
Object.assign(globalThis, { WEBJOB_VERSION: '0.1.0', WEBJOB_SHIPPED: {} });

/** Parses words until commander ends the program; returns its error, and what it printed where. */
async function parse(words: readonly string[]): Promise<{ error: CommanderError; stdout: string; stderr: string }> {
  const printed = { stdout: '', stderr: '' };
  const keep = (command: Command): void => {
    command.configureOutput({
      writeOut: (text) => {
        printed.stdout += text;
      },
      writeErr: (text) => {
        printed.stderr += text;
      },
    });
    for (const child of command.commands) keep(child);
  };
  const program = await makeProgram(words);
  keep(program);
  try {
    await program.parseAsync(words, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) return { error, ...printed };
    throw error;
  }
  return assert.fail(`${words.join(' ')} is neither explained nor refused`);
}

/** What `--help` prints on stdout behind these words. */
export async function printHelp(words: readonly string[]): Promise<string> {
  const { error, stdout } = await parse([...words, '--help']);
  assert.equal(error.exitCode, 0, words.join(' '));
  return stdout;
}

/** What is said on stderr of words of which an option or argument cannot be what it is. */
export async function refuse(...words: readonly string[]): Promise<string> {
  const { error, stderr } = await parse(words);
  assert.equal(error.code, 'commander.invalidArgument', words.join(' '));
  return stderr;
}
