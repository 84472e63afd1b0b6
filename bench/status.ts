// What root knows of a site and the view shows: assignments, missed expectations, certificates.
import { execFileSync } from 'node:child_process';
import { chownSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { formatAssignment } from '../fleet/assignment.ts';

const WEBJOBCTL = join(import.meta.dirname, '..', 'dist', 'webjobctl');
const NOBODY = 65_534;
/** The facts of an active assignment without arguments or limits, for all clients. */
export const PLAIN = {
  args: [],
  until: undefined,
  state: 'active',
  open: 1,
  by: 'root',
  at: '',
  reason: undefined,
} as const;

/**
 * Gives a site passwords, assignments and a rule for all of its clients, when it has none, and
 * leaves the status that the view shows, as root does.
 */
export function leaveStatus(folder: string): void {
  const config = join(folder, 'config');
  const answers = join(config, 'webjob-acts', 'answers');
  if (existsSync(answers)) return;
  const log = readFileSync(join(folder, 'logfiles', 'nph-webjob.log'), 'latin1');
  const clients = [...new Set(log.match(/ client\d+(?= )/g))].map((client) => client.trim());
  const passwords = clients.map((client) => `${client}:$2y$05$${'x'.repeat(53)}\n`);
  writeFileSync(join(folder, 'etc', 'webjob.htpasswd'), passwords.join(''));
  const lines = Array.from({ length: 200 }, (_, index) => {
    const to = [index % 100 === 0 ? '*' : `client${index}*`];
    const assignment = { ...PLAIN, id: String(index + 1), command: 'host.sh', to, from: 1000 };
    return `${formatAssignment({ ...assignment, schedule: { kind: 'once' } })}\n`;
  });
  writeFileSync(join(config, 'nph-webjob', 'assignments'), lines.join(''));
  writeFileSync(join(config, 'nph-webjob', 'expect'), 'expect * host.sh every=1h\n');
  mkdirSync(answers, { recursive: true });
  const inbox = join(config, 'webjob-acts', 'inbox');
  mkdirSync(inbox);
  // webjobctl refuses an inbox of root.
  chownSync(inbox, NOBODY, NOBODY);
  const run = (command: string): void => {
    const words = [WEBJOBCTL, '-c', join(folder, 'etc', 'nph-webjob.cfg'), command];
    execFileSync(process.execPath, words, { stdio: 'inherit' });
  };
  run('index');
  const startedAt = performance.now();
  run('acts');
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  console.log(`the status of ${clients.length} clients by webjobctl acts: ${seconds} s`);
}
