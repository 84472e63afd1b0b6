// Plans how the jobs of a filter are found: by the index of its rarest condition, if few enough
// jobs match it, or else in the order of the list. Globs are first matched against the known names,
// of which there are far fewer than jobs.
import type { JobState } from './job.ts';
import type { Database } from './sqlite.ts';
import { ALL_CLIENTS } from './writer.ts';

export interface ScanFilter {
  /**
   * A name, or several alternatives, with `*` and `?`. `-` is an unknown client.
   */
  client?: string | readonly string[] | undefined;
  /** A name with `*` and `?`. */
  command?: string | undefined;
  states?: readonly JobState[] | undefined;
  exitCode?: number | undefined;
  since?: Date | undefined;
  until?: Date | undefined;
  /** Only jobs of these units. */
  units?: readonly string[] | undefined;
}

export type Condition = readonly [sql: string, ...values: (string | number)[]];

export interface Plan {
  /** Whether no job can match. */
  isNone: boolean;
  /** The index that finds the rows; undefined for the index of the requested order. */
  index: string | undefined;
  /** The conditions that the index answers. */
  indexed: readonly Condition[];
  /** The conditions that each row found is checked against. */
  residual: readonly Condition[];
}

/** Up to this many units are looked up one by one. */
const FEW_UNITS = 500;
/** Up to this many names are looked up one by one. */
const MOST_NAMES = 500;
/** The maximum number of commands that are searched, because clients can have any name logged. */
const MOST_COMMANDS = 2000;

/** A condition with the index that answers it alone. */
interface Choice {
  index: string;
  condition: Condition;
  /** A condition that is checked for each row that the index finds. */
  also?: Condition;
}

/** Plans a search; an index is used if it finds at most `most` rows, which are then sorted. */
export function planScan(database: Database, filter: ScanFilter, most: number): Plan {
  const { exitCode, since, until, units, states = [] } = filter;
  const times: Condition[] = [];
  if (since) times.push(['at >= ?', since.toISOString()]);
  if (until) times.push(['at <= ?', until.toISOString()]);
  const residual: Condition[] = [];
  const choices: Choice[] = [];
  let isNone = false;
  const choose = (index: string, column: string, names: readonly string[] | undefined, condition: Condition): void => {
    if (names?.length === 0) isNone = true;
    if (names) choices.push({ index, condition: anyOf(column, names) });
    else residual.push(condition);
  };
  const clients = typeof filter.client === 'string' ? [filter.client] : filter.client;
  if (clients && !clients.includes('*'))
    choose('scan_client', 'client', findClients(database, clients), likeAny('client', clients));
  if (filter.command !== undefined && filter.command !== '*') {
    const command = [filter.command];
    choose('scan_command', 'command', findCommands(database, filter.command), likeAny('command', command));
  }
  if (states.length > 0) choices.push({ index: 'scan_state', condition: anyOf('state', states) });
  if (exitCode !== undefined) {
    const also: Condition = ['exit_code IS ? AND signal IS NULL', exitCode];
    // No index is kept for exit code 0, because most programs end with it.
    if (exitCode === 0) residual.push(also);
    else choices.push({ index: 'scan_exit', condition: ['exit_code = ? AND exit_code <> 0', exitCode], also });
  }
  if (units) {
    const condition: Condition = ['unit IN (SELECT value FROM json_each(?))', JSON.stringify(units)];
    if (units.length <= FEW_UNITS) return driveBy({ index: 'jobs_unit', condition }, choices, times, residual, isNone);
    residual.push(condition);
  }
  const rarest = isNone ? undefined : findRarest(database, choices, times, most);
  if (rarest) return driveBy(rarest, choices, times, residual, false);
  // The index of a single name is ordered by time, so the number of its jobs does not matter.
  const single = choices.find(({ condition: [sql] }) => / = \?$/.test(sql));
  const others = choices.filter((choice) => choice !== single);
  return {
    isNone,
    index: undefined,
    indexed: [...(single ? [single.condition] : []), ...times],
    residual: [...residual, ...others.map(rowCondition)],
  };
}

const rowCondition = ({ condition, also }: Choice): Condition => also ?? condition;

function driveBy(
  by: Choice,
  choices: readonly Choice[],
  times: readonly Condition[],
  residual: readonly Condition[],
  isNone: boolean,
): Plan {
  const others = choices.filter((choice) => choice !== by).map(rowCondition);
  return {
    isNone,
    index: by.index,
    indexed: [by.condition, ...times],
    residual: [...residual, ...others, ...(by.also ? [by.also] : [])],
  };
}

/** Returns the choice with the fewest rows; undefined when every choice has more than `most`. */
function findRarest(
  database: Database,
  choices: readonly Choice[],
  times: readonly Condition[],
  most: number,
): Choice | undefined {
  let rarest: { choice: Choice; count: number } | undefined;
  for (const choice of choices) {
    const where = [choice.condition, ...times];
    const limit = rarest?.count ?? most + 1;
    const row = database
      .prepare(
        `SELECT count(*) AS count FROM (SELECT 1 FROM jobs INDEXED BY ${choice.index} WHERE ${joinConditions(where)} LIMIT ${limit})`,
      )
      .get(...valuesOf(where));
    const count = Number(row?.count);
    if (count < limit) rarest = { choice, count };
  }
  return rarest?.choice;
}

export function joinConditions(conditions: readonly Condition[]): string {
  return conditions.map(([sql]) => `(${sql})`).join(' AND ');
}

export function valuesOf(conditions: readonly Condition[]): (string | number)[] {
  return conditions.flatMap(([, ...values]) => values);
}

/** The condition that a column has one of these values. */
function anyOf(column: string, values: readonly string[]): Condition {
  const [value = ''] = values;
  if (values.length === 1) return [`${column} = ?`, value];
  return [`${column} IN (SELECT value FROM json_each(?))`, JSON.stringify(values)];
}

const isPattern = (word: string): boolean => /[*?]|^-$/.test(word);

/** The condition that a column matches one of the words; `-` matches an unknown name. */
function likeAny(column: string, words: readonly string[]): Condition {
  const exact = words.filter((word) => !isPattern(word));
  const globs = words.filter(isPattern).map(globOf);
  const named = `coalesce(${column}, '-')`;
  const parts = [
    ...(exact.length > 0 ? [`${named} IN (SELECT value FROM json_each(?))`] : []),
    ...globs.map(() => `${named} GLOB ?`),
  ];
  return [parts.join(' OR '), ...(exact.length > 0 ? [JSON.stringify(exact)] : []), ...globs];
}

/** Quotes brackets, which have a meaning in SQLite's GLOB but not in our globs. */
const globOf = (word: string): string => word.replaceAll('[', '[[]');

/**
 * Returns the clients that match one of the words; undefined when there are many, or when unknown
 * clients match too.
 */
function findClients(database: Database, words: readonly string[]): string[] | undefined {
  if (!words.some(isPattern)) return words.length <= MOST_NAMES ? [...words] : undefined;
  const [sql, ...values] = likeAny("nullif(client, '')", words);
  const names = database
    .prepare(`SELECT client FROM sums WHERE client <> ? AND (${sql}) LIMIT ${MOST_NAMES + 1}`)
    .all(ALL_CLIENTS, ...values)
    .map(({ client }) => client as string);
  return names.length <= MOST_NAMES && !names.includes('') ? names : undefined;
}

/** Returns the commands that match a word; undefined when there are many. */
function findCommands(database: Database, word: string): string[] | undefined {
  if (!isPattern(word)) return [word];
  const names = database
    .prepare(
      `WITH RECURSIVE names (name) AS (
         SELECT min(command) FROM jobs
         UNION ALL SELECT (SELECT min(command) FROM jobs WHERE command > name) FROM names WHERE name IS NOT NULL LIMIT ${MOST_COMMANDS + 2}
       ) SELECT name, name GLOB ? AS isLike FROM names WHERE name IS NOT NULL`,
    )
    .all(globOf(word)) as { name: string; isLike: number }[];
  const like = names.filter(({ isLike }) => isLike === 1).map(({ name }) => name);
  const hasUnknown = database.prepare("SELECT 1 WHERE '-' GLOB ?").get(globOf(word)) !== undefined;
  return names.length > MOST_COMMANDS || like.length > MOST_NAMES || hasUnknown ? undefined : like;
}
