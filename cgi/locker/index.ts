export * from './chain.ts';
export * from './custody.ts';
export * from './deposit.ts';
export * from './digest.ts';
export * from './failure.ts';
export * from './inventory.ts';
export * from './layout.ts';
export * from './lines.ts';
export { isAbandoned, removeDeadLock } from './lock.ts';
