// The script that a client gets for the batch command: one run of webjob for each assignment that
// is due. It works with this client and with the original.
import { quote } from '../cli/shell.ts';

/** An assignment for one client at one due time. */
export interface Order {
  id: string;
  /** Seconds since 1970. */
  due: number;
  command: string;
  args: readonly string[];
  /** The signed note of the assignment, where there is one: see signed.ts. */
  note?: string | undefined;
}

/**
 * Finds the client program and its configuration: from WEBJOB_PROGRAM (shell words) and
 * WEBJOB_FILE, or otherwise from the process that started the script. The original client sets
 * neither variable, so its process is looked for in /proc, or with ps.
 */
const HEAD = `conf=\${WEBJOB_FILE-} program=\${WEBJOB_PROGRAM-}
[ -n "$conf" ] || conf=\${1-}
if [ -z "$conf" ]; then
  if [ -r "/proc/$PPID/cmdline" ]; then
    words=$(tr '\\000' '\\n' < "/proc/$PPID/cmdline")
  else
    words=$(ps -o args= -p "$PPID" | tr ' ' '\\n')
  fi
  conf=$(printf '%s\\n' "$words" | awk '
    isNext { print; exit }
    /^(-f|--file)$/ { isNext = 1; next }
    sub(/^--file=/, "") { print; exit }
    /^-f./ { print substr($0, 3); exit }')
fi
if [ -z "$program" ]; then
  if command -v webjob > /dev/null 2>&1; then program=webjob
  elif exe=$(readlink "/proc/$PPID/exe"); then program='"$exe"'
  else program=webjob
  fi
fi
run() {
  assignment=$1
  shift
  WEBJOB_ASSIGNMENT=\${assignment%% *}@\${assignment##* }
  export WEBJOB_ASSIGNMENT
  if [ -n "$conf" ]; then
    eval "$program" '-e -f "$conf" "$@"' < /dev/null
  else
    echo "webjob-batch: its configuration file is unknown; give it again: webjob -e -f FILE BATCH FILE" >&2
    false
  fi
  echo "assignment $assignment exit $?"
}
`;

const formatGuard = (jobId: string): string => `if [ "\${WEBJOB_JID-${jobId}}" != ${jobId} ]; then
  echo "webjob-batch: this batch was made for job ${jobId}, and does not run in another job" >&2
  exit
fi
`;

/** The line that the script prints to stdout when a run has ended. */
const ENDED = /^assignment ([1-9][0-9]{0,8}) due ([0-9]{1,12}) exit ([0-9]{1,3})$/;

/**
 * The beginning of the line that lists the orders in JSON, for a client that runs them without a
 * shell.
 */
const ORDERS = '#orders ';

const describe = ({ id, due, command, args, note }: Order): Order => {
  return { id, due, command, args, ...(note !== undefined && { note }) };
};

/**
 * Parses the orders in a script, for a client that runs them itself. Throws SyntaxError for a
 * script that is not a batch.
 */
export function parseBatch(script: string): Order[] {
  if (!script.startsWith('#!/bin/sh\n# What is assigned to '))
    throw new SyntaxError('it is not a batch of a WebJob server');
  const line = script.split('\n', 3)[2] ?? '';
  if (!line.startsWith(ORDERS)) {
    if (line.startsWith('# Nothing is due.')) return [];
    throw new SyntaxError('it is a batch of an older server, which a shell must run: webjob -e -f FILE batch');
  }
  const orders = JSON.parse(line.slice(ORDERS.length)) as Order[];
  const isOrder = ({ id, due, command, args, note }: Order): boolean =>
    /^[1-9][0-9]{0,8}$/.test(id) &&
    Number.isSafeInteger(due) &&
    typeof command === 'string' &&
    args.every((arg) => typeof arg === 'string') &&
    (note === undefined || typeof note === 'string');
  if (!Array.isArray(orders) || !orders.every(isOrder)) throw new SyntaxError('its orders are malformed');
  return orders;
}

/** The line that reports the result of an order. */
export function formatEnded({ id, due }: Order, code: number): string {
  return `assignment ${id} due ${due} exit ${code}\n`;
}

/**
 * Makes the script for a client; without orders, a script that does nothing. When two runs overlap,
 * the client may start the same script for both. The script therefore contains the id of its job
 * and does nothing in another job, if the client says which job it runs. The client may also
 * overwrite the script with the next one, so the shell reads all of it before it runs a command.
 */
export function formatBatch(clientId: string, orders: readonly Order[], jobId?: string): string {
  const title = `#!/bin/sh\n# What is assigned to ${clientId}, made for it by the WebJob server.\n`;
  if (orders.length === 0) return `${title}# Nothing is due.\n:\n`;
  const lines = orders.map(({ id, due, command, args }) => {
    const words = [`${id} due ${due}`, command, ...args].map(quote);
    return `run ${words.join(' ')}\n`;
  });
  const guard = jobId === undefined ? '' : formatGuard(jobId);
  return `${title}${ORDERS}${JSON.stringify(orders.map(describe))}\n{\n${guard}${HEAD}${lines.join('')}exit\n}\n`;
}

/** Parses the exit codes of webjob that the script printed, by `ID@DUE`. */
export function parseBatchOutput(text: string): Map<string, number> {
  const found = new Map<string, number>();
  for (const line of text.split('\n')) {
    const [, id, due, code] = ENDED.exec(line) ?? [];
    if (code !== undefined && !found.has(`${id}@${due}`)) found.set(`${id}@${due}`, Number(code));
  }
  return found;
}
