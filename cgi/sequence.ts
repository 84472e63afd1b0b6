// The number of a request in a process that stays, for job ids and `%pid`. A script's is its process id; a resident process counts on from
// there in steps that no process id reaches, so that all processes of one machine can issue ids in the same second. Pure.

/** One more than the largest process id of any system (Linux: 2^22). */
const STEP = 2 ** 22;
const MICROSECONDS = 1_000_000;

/**
 * Gives a number for each request, the second in which it came given: never the same twice in one second. In the second in which the
 * process started it counts from the microsecond, because an earlier process with the same id may have served in that second.
 */
export function createSequence(pid: number, startedAtMs: number): (epochSeconds: number) => number {
  let newest = Math.floor(startedAtMs / 1000);
  let count = Math.floor((startedAtMs / 1000 - newest) * MICROSECONDS);
  let highest = count;
  return (epochSeconds) => {
    if (epochSeconds > newest) {
      newest = epochSeconds;
      count = 0;
    } else if (epochSeconds < newest) {
      // The clock was set back to a second that has been counted: nothing that was ever given comes again.
      count = highest;
    }
    count += 1;
    highest = Math.max(highest, count);
    return pid + count * STEP;
  };
}
