// Where the commands find what ends them.
export * from '../cli/failure.ts';
