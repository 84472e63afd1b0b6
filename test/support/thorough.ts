// How many similar cases a run of the tests tries. Every kind of case is tried by every run; of
// long series of similar cases (shells, kills at one system call after the other, configurations of
// httpd, random sites) `npm test` tries a part and `npm run test:thorough` all.

const isThorough = process.env.WEBJOB_TEST_THOROUGH === '1';

/** The first number in a thorough run, the second otherwise. */
export function many(thorough: number, usual: number): number {
  return isThorough ? thorough : usual;
}

/**
 * This many of the cases: the first, the last, and others at even distances; all of them in a
 * thorough run.
 */
export function part<Case>(cases: readonly Case[], usual: number): readonly Case[] {
  if (isThorough || usual >= cases.length) return cases;
  if (usual <= 1) return cases.slice(0, usual);
  const step = (cases.length - 1) / (usual - 1);
  return Array.from({ length: usual }, (_, at) => cases[Math.round(at * step)] as Case);
}
