export * from './deposit.ts';
export * from './failure.ts';
export * from './layout.ts';
