// The acts of operators on a job, from the store and from newer custody records.
import { type Act, Acts, type KeptActs } from '../evidence/acts.ts';
import type { Job } from './job.ts';
import { logFolders, type Site } from './site.ts';
import type { Database } from './sqlite.ts';
import { isDatabaseError, openUnrefreshed } from './store.ts';

/**
 * Returns the acts on a job and the holds of its client, oldest first. Throws the error of a system
 * call.
 */
export function readActs(site: Site, job: Job): Act[] {
  const folders = logFolders(site);
  const database = openUnrefreshed(site);
  if (!database) return new Acts(folders).of(job);
  try {
    return new Acts(folders, keptIn(database)).of(job);
  } catch (error) {
    if (!isDatabaseError(error)) throw error;
    return new Acts(folders).of(job);
  } finally {
    database.close();
  }
}

function keptIn(database: Database): KeptActs {
  const path = "folder || '/' || name AS path";
  const files = database.prepare(`SELECT ${path}, inode, offset FROM files WHERE kind = 'keeping'`).all();
  const find = database.prepare(
    `SELECT act, ${path} FROM acts JOIN files ON files.id = acts.file WHERE acts.subject = ? AND acts.kind = ? ORDER BY acts.id`,
  );
  return {
    read: new Map(files.map((file) => [String(file.path), { inode: String(file.inode), to: Number(file.offset) }])),
    of: (kind, id) =>
      find.all(id, kind).map((row) => ({ act: JSON.parse(String(row.act)) as Act, path: String(row.path) })),
  };
}
