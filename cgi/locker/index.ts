export * from './deposit.ts';
export * from './failure.ts';
export * from './inventory.ts';
export * from './layout.ts';
