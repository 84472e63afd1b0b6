// The output of a test run: every test as it ends, then the failures, the times by file, and the
// counts. A failed set-up is reported first and in full, with the number of tests that did not run
// because of it. Node's own reporter would list those tests one by one first, and does not count
// failed suites.
import { relative, resolve } from 'node:path';
import type { EventData } from 'node:test';
import { spec, type TestEvent } from 'node:test/reporters';
import { inspect } from 'node:util';

export interface Outcome {
  isGood: boolean;
  /**
   * Processor time in seconds by file, largest first; wall-clock time where the system does not
   * count it.
   */
  times: [file: string, seconds: number][];
}

interface Failure {
  /**
   * A set-up is a `before` hook, the body of a describe, or a file that ends before its tests do.
   */
  isSetUp: boolean;
  /** The file and the name of every test that ended with this error. */
  places: string[];
  error: string;
  /** The number of tests that did not run because of it. */
  notRun: number;
}

/** Lines of a stack trace inside of Node. */
const RUNNER_FRAMES = /^ +at .*\(?node:(?:internal|async_hooks).*\n/gm;
const TIMES_SHOWN = 40;
const STDERR_SHOWN = 4000;
/** The types of Node 24 lack `failed`. */
type Counts = EventData.TestSummary['counts'] & { failed: number };
const NO_COUNTS: Counts = { tests: 0, suites: 0, passed: 0, failed: 0, cancelled: 0, skipped: 0, todo: 0, topLevel: 0 };

/**
 * Prints the events of a run as they arrive, and the summary. Paths are shown relative to `root`;
 * `readUsed` returns the processor time of each file in seconds at the end.
 */
export async function report(
  events: AsyncIterable<TestEvent>,
  root: string,
  readUsed: () => ReadonlyMap<string, number>,
): Promise<Outcome> {
  const run = new Run(root);
  for await (const event of events) run.take(event);
  return run.end(readUsed());
}

class Run {
  readonly #root: string;
  readonly #live = new LivePrinter();
  readonly #times: Outcome['times'] = [];
  readonly #failures: Failure[] = [];
  /** The end of each file's stderr, which shows why it ended before its tests. */
  readonly #stderr = new Map<string, string>();
  #summary = { counts: NO_COUNTS, duration_ms: 0 };
  #failedSuites = 0;
  #notRun = 0;

  constructor(root: string) {
    this.#root = root;
  }

  take(event: TestEvent): void {
    if (event.type === 'test:summary') {
      const { file, counts, duration_ms } = event.data;
      if (file === undefined) this.#summary = { counts: counts as Counts, duration_ms };
      return;
    }
    // The counts, which are printed at the end.
    if (event.type === 'test:diagnostic' && event.data.file === undefined) return;
    if (event.type === 'test:stderr') this.#keepStderr(event.data);
    if (event.type === 'test:complete' && isOfFile(event.data, this.#root))
      this.#times.push([this.#path(event.data), event.data.details.duration_ms / 1000]);
    if (event.type === 'test:fail') this.#takeFailure(event.data, event);
    else this.#live.take(event);
  }

  #takeFailure(data: EventData.TestFail, event: TestEvent): void {
    const kind = (data.details.error as { failureType?: string }).failureType;
    if (kind === 'cancelledByParent') {
      this.#live.forgetStart();
      if (data.details.type !== 'suite') this.#notRun += 1;
      return;
    }
    this.#live.take(event);
    if (kind === 'subtestsFailed') return;
    const isSuite = data.details.type === 'suite';
    if (isSuite) this.#failedSuites += 1;
    const failure = this.#describe(data, isSuite || isOfFile(data, this.#root));
    const same = this.#failures.find(({ error }) => error === failure.error);
    if (same) {
      same.places.push(...failure.places);
      same.notRun += failure.notRun;
      return;
    }
    this.#failures.push(failure);
    if (failure.isSetUp) this.#live.print(format(failure));
  }

  #describe(data: EventData.TestFail, isSetUp: boolean): Failure {
    const { error } = data.details;
    const said = isOfFile(data, this.#root) ? this.#stderr.get(this.#path(data)) : undefined;
    const hook = (error as { failureType?: string }).failureType === 'hookFailed';
    const failure = {
      isSetUp: isSetUp || hook,
      places: [`${this.#path(data)}:${data.line}:${data.column} ${data.name}`],
      error: (said ?? inspect(error.cause ?? error)).replace(RUNNER_FRAMES, ''),
      notRun: this.#notRun,
    };
    this.#notRun = 0;
    return failure;
  }

  #keepStderr({ file, message }: EventData.TestStderr): void {
    const path = this.#path({ file });
    this.#stderr.set(path, `${this.#stderr.get(path) ?? ''}${message}`.slice(-STDERR_SHOWN));
  }

  #path({ file = '' }: EventData.LocationInfo): string {
    return relative(this.#root, resolve(this.#root, file));
  }

  end(used: ReadonlyMap<string, number>): Outcome {
    const { counts, duration_ms } = this.#summary;
    const [setUps, tests] = [true, false].map((is) => this.#failures.filter(({ isSetUp }) => isSetUp === is));
    this.#live.print(list('set-ups that failed', setUps ?? []) + list('tests that failed', tests ?? []));
    const times = this.#times
      .map(([file, seconds]): [string, number] => [file, used.get(resolve(this.#root, file)) ?? seconds])
      .sort((a, b) => b[1] - a[1]);
    this.#live.print(formatTimes(times, duration_ms / 1000));
    const failed = counts.failed + this.#failedSuites;
    const { tests: all, suites, passed: pass, cancelled, skipped, todo } = counts;
    const lines = Object.entries({ tests: all, suites, pass, fail: failed, cancelled, skipped, todo, duration_ms });
    this.#live.print(lines.map(([name, value]) => `ℹ ${name} ${value}\n`).join(''));
    this.#live.print(`${pass} passed, ${failed + cancelled} failed, ${skipped} skipped\n`);
    // A run without any result is not a success.
    return { isGood: failed + cancelled === 0 && this.#failures.length === 0 && all > 0, times };
  }
}

/** Whether an event is about a whole file, which Node runs as one test with the file's name. */
function isOfFile({ name, file, nesting }: EventData.TestComplete | EventData.TestFail, root: string): boolean {
  return nesting === 0 && file !== undefined && resolve(root, name) === file;
}

function list(title: string, failures: readonly Failure[]): string {
  if (failures.length === 0) return '';
  return `\n✖ ${title}:\n\n${failures.map(format).join('\n')}`;
}

function format({ places, error, notRun }: Failure): string {
  const consequence = notRun === 0 ? '' : `  ${notRun} ${notRun === 1 ? 'test' : 'tests'} did not run because of it\n`;
  const indented = error.trimEnd().replace(/^/gm, '  ');
  return `${places.map((place) => `✖ ${place}\n`).join('')}${indented}\n${consequence}`;
}

function formatTimes(times: Outcome['times'], wallSeconds: number): string {
  const line = (seconds: number, text: string): string => `${seconds.toFixed(1).padStart(8)} s  ${text}\n`;
  const shown = times.slice(0, TIMES_SHOWN).map(([file, seconds]) => line(seconds, file));
  const total = times.reduce((sum, [, seconds]) => sum + seconds, 0);
  const files = `${times.length} ${times.length === 1 ? 'file' : 'files'}`;
  return `\nprocessor times by file\n${shown.join('')}${line(total, `${files}, in ${wallSeconds.toFixed(1)} s side by side`)}\n`;
}

/** Node's own reporter for live output, without the tests that will be dropped. */
class LivePrinter {
  readonly #spec = new spec();
  /** Start events are held back until the test has ended, and printed then. */
  #starts: TestEvent[] = [];

  constructor() {
    this.#spec.on('data', (text) => process.stdout.write(text));
  }

  take(event: TestEvent): void {
    if (event.type === 'test:start') {
      this.#starts.push(event);
      return;
    }
    if (event.type === 'test:pass' || event.type === 'test:fail')
      for (const start of this.#starts.splice(0)) this.#spec.write(start);
    this.#spec.write(event);
  }

  forgetStart(): void {
    this.#starts.pop();
  }

  print(text: string): void {
    process.stdout.write(text);
  }
}
