import './test-compiled.ts';
import { noteProcessorTime } from './test-leftovers.ts';

// Loaded before every test file. Node makes tests use colours when its own output is a terminal.
delete process.env.FORCE_COLOR;
process.on('exit', () => noteProcessorTime(process.argv[1] ?? ''));
