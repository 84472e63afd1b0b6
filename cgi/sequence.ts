// Numbers of requests in a persistent worker, for job ids and `%pid`. A CGI script uses its process
// id. A persistent worker counts on from there in steps larger than any process id, so that all
// processes of one machine can issue ids in the same second. Pure functions.

/** One more than the largest process id of any system (Linux: 2^22). */
const STEP = 2 ** 22;
const MICROSECONDS = 1_000_000;

/**
 * Returns a function that numbers requests by the second in which they arrived, without repetition
 * within a second. In the second in which the process started it counts from the microsecond,
 * because an earlier process with the same id may have served in that second.
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
      // The clock was set back to a second that has been counted: no number is ever reused.
      count = highest;
    }
    count += 1;
    highest = Math.max(highest, count);
    return pid + count * STEP;
  };
}
