// Where the commands find how webjobctl speaks.
export * from '../cli/output.ts';
