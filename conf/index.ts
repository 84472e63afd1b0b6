export * from './keyvalue.ts';
