// What a command line comes to, and the reader of the ones that cron runs. All others are for client/command-line.ts,
// which takes longer to load than to do all the rest of them.

/** The options of webjob itself, by their long names. */
export interface Options {
  execute?: true;
  batch?: true;
  /** A script of a batch, which --batch has fetched. */
  runBatch?: string;
  getUrl?: true;
  hashsum?: true;
  flush?: true | string;
  file?: string;
  type?: string;
}

/** A command line taken apart: `args` begin with the first word that is no option, and are no options of ours. */
export interface CommandLine {
  options: Options;
  args: string[];
}

/**
 * Reads `--execute --file config program ...` in any order and in short or long form. Returns undefined for every command
 * line that holds something else, be it right or wrong.
 */
export function readPlainly(argv: readonly string[]): CommandLine | undefined {
  const options: Options = {};
  for (let at = 0; at < argv.length; at++) {
    const word = argv[at] ?? '';
    if (word === '-e' || word === '--execute') {
      options.execute = true;
    } else if (word === '-f' || word === '--file') {
      at += 1;
      const value = argv[at];
      if (value === undefined || value.startsWith('-')) return undefined;
      options.file = value;
    } else {
      return word.startsWith('-') ? undefined : { options, args: argv.slice(at) };
    }
  }
  return undefined;
}
