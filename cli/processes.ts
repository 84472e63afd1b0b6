// Is a process alive, and is it the one that it was? The server asks the same, for its slots.
export { isAlive, startOf } from 'webjob-locker/processes';
