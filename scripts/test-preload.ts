import { noteProcessorTime } from './test-leftovers.ts';

// Loaded before every test file. Node tells tests to colour what they print where it prints to a terminal itself.
delete process.env.FORCE_COLOR;
// The tests themselves are kept compiled by Node; the programs they start run as a user would start them.
delete process.env.NODE_COMPILE_CACHE;
process.on('exit', () => noteProcessorTime(process.argv[1] ?? ''));
