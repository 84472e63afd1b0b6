export * from './commandlog.ts';
export * from './jobids.ts';
export * from './logline.ts';
export * from './names.ts';
export * from './query.ts';
export * from './record.ts';
export * from './statuses.ts';
export * from './time.ts';
