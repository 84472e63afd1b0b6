export * from './body.ts';
export * from './descriptors.ts';
export * from './request.ts';
export * from './response.ts';
export * from './script.ts';
