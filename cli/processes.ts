// Whether a process is alive and still the same one. The server uses the same functions for its
// slots.
export { isAlive, startOf } from 'webjob-locker/processes';
