// The program webjob: runs the mode that the command line selects and exits with its code.
import { startProgram } from '../cli/program.ts';
import { EXIT_CODES, Failure } from './failure.ts';
import { type Options, readPlainly } from './options.ts';
import { readConnection, readSettings } from './settings.ts';
import { executeJob } from './stages.ts';

async function main(argv: string[]): Promise<number> {
  const { options, args } = readPlainly(argv) ?? (await (await import('./command-line.ts')).readCommandLine(argv));
  return await runMode(options, args);
}

async function runMode(options: Options, [first, ...rest]: string[]): Promise<number> {
  const modes = (['execute', 'batch', 'runBatch', 'getUrl', 'hashsum', 'flush'] as const).filter(
    (name) => options[name],
  );
  if (modes.length !== 1) throw usage('use one of --execute, --batch, --get-url, --hashsum and --flush');
  const conf = (): string => options.file ?? fail("required option '-f, --file <config>' not specified");
  const only = (argument: string | undefined): string | undefined =>
    rest.length === 0 ? argument : fail(`too many arguments: ${rest.length + 1}`);
  switch (modes[0]) {
    case 'execute': {
      const [file, program] = [conf(), first ?? fail("missing required argument 'program'")];
      return await executeJob(readSettings(file), file, program, rest);
    }
    case 'batch': {
      const { batchRunner, USUAL_BATCH } = await import('./batch.ts');
      return await executeJob(readSettings(conf()), conf(), only(first) ?? USUAL_BATCH, [], batchRunner());
    }
    case 'runBatch':
      return await (await import('./batch.ts')).runBatch(options.runBatch ?? '');
    case 'getUrl':
      return await (await import('./modes.ts')).getUrl(
        readConnection(options.file),
        only(first) ?? fail("missing required argument 'url'"),
      );
    case 'hashsum':
      return await (await import('./modes.ts')).printDigest(
        options.type ?? fail("required option '-t, --type <digest>' not specified"),
        only(first),
      );
    default:
      if (first !== undefined) throw usage('--flush takes no arguments');
      return await (await import('./modes.ts')).flush(
        readSettings(conf()),
        conf(),
        options.flush === true ? undefined : options.flush,
      );
  }
}

function fail(message: string): never {
  throw usage(message);
}

function usage(message: string): Failure {
  return new Failure('usage', message, 'webjob --help');
}

startProgram('webjob', EXIT_CODES, () => main(process.argv.slice(2)));
