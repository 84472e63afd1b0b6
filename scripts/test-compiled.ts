// Node keeps compiled sources of the tests in the directory NODE_COMPILE_CACHE. The programs that
// tests start run as for a user, so this module removes the variable when it is loaded.

/** The environment with which a process shares the compiled sources; empty outside `npm test`. */
export const COMPILED_SOURCES: NodeJS.ProcessEnv = takeVariable();

function takeVariable(): NodeJS.ProcessEnv {
  const { NODE_COMPILE_CACHE } = process.env;
  delete process.env.NODE_COMPILE_CACHE;
  return NODE_COMPILE_CACHE === undefined ? {} : { NODE_COMPILE_CACHE };
}
