// A parsed command line, and a parser for the simple command lines that cron runs. All others are
// parsed by client/command-line.ts, which takes longer to load than everything else together.

/** The options of webjob itself, by their long names. */
export interface Options {
  execute?: true;
  batch?: true;
  /** The script of a batch that --batch has fetched. */
  runBatch?: string;
  getUrl?: true;
  hashsum?: true;
  flush?: true | string;
  file?: string;
  type?: string;
}

/**
 * A parsed command line. `args` starts with the first word that is not an option; later options
 * belong to the program.
 */
export interface CommandLine {
  options: Options;
  args: string[];
}

/**
 * Parses `--execute --file config program ...` in any order, with short or long options. Returns
 * undefined for every other command line, valid or not.
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
