import { noteProcessorTime } from './test-leftovers.ts';

// Loaded before every test file. Node makes tests use colours when its own output is a terminal.
delete process.env.FORCE_COLOR;
// Only the tests themselves use the compile cache; the programs they start run as for a user.
delete process.env.NODE_COMPILE_CACHE;
process.on('exit', () => noteProcessorTime(process.argv[1] ?? ''));
