// How much of what is alike a run of the tests tries. Every kind of case is tried by every run; of long rows of like cases (shells, kills at
// one system call after the other, ways of httpd, random sites) `npm test` takes a part and `npm run test:thorough` all.

const isThorough = process.env.WEBJOB_TEST_THOROUGH === '1';

/** The first number in a thorough run, the second in any other. */
export function many(thorough: number, usual: number): number {
  return isThorough ? thorough : usual;
}

/** So many of the cases, the first and the last among them and the others at even distances; all of them in a thorough run. */
export function part<Case>(cases: readonly Case[], usual: number): readonly Case[] {
  if (isThorough || usual >= cases.length) return cases;
  if (usual <= 1) return cases.slice(0, usual);
  const step = (cases.length - 1) / (usual - 1);
  return Array.from({ length: usual }, (_, at) => cases[Math.round(at * step)] as Case);
}
