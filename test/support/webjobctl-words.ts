// The command line of webjobctl in this process, up to the point where a command runs: help, and
// refusals.
import assert from 'node:assert/strict';
import { type Command, CommanderError } from 'commander';
import { makeProgram } from '../../admin/program.ts';

// What the build inserts instead.
Object.assign(globalThis, { WEBJOB_VERSION: '0.1.0', WEBJOB_SHIPPED: {} });

/** Parses arguments until commander ends the program; returns its error and its output. */
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

/** The `--help` output for these arguments. */
export async function printHelp(words: readonly string[]): Promise<string> {
  const { error, stdout } = await parse([...words, '--help']);
  assert.equal(error.exitCode, 0, words.join(' '));
  return stdout;
}

/** The messages on stderr for arguments with an invalid value. */
export async function refuse(...words: readonly string[]): Promise<string> {
  const { error, stderr } = await parse(words);
  assert.equal(error.code, 'commander.invalidArgument', words.join(' '));
  return stderr;
}
