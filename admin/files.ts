// Where the commands find what writes files whole or not at all.
export * from '../cli/files.ts';
