// The settings in a process that stays: read anew when their file changed, and not before it has been left alone for a second. A file
// that is being written would otherwise be read by halves, and half of the settings are settings too.
import { statSync } from 'node:fs';
import type { Configuration } from './settings.ts';

export type SettingsReader = (propertiesFile: string | undefined) => Configuration;

const SETTLED_AFTER_MS = 1000;

interface Kept {
  mark: string;
  configuration: Configuration;
  /** Another mark than the one that holds, and since when it has been seen. */
  seen: { mark: string; at: number } | undefined;
}

/** A reader that keeps what it has read. `defaultFiles` are looked at when no file is named. */
export function keepSettings(read: SettingsReader, defaultFiles: readonly string[]): SettingsReader {
  const kept = new Map<string | undefined, Kept>();
  return (file) => {
    const files = file === undefined ? defaultFiles : [file];
    const mark = markOf(files);
    const found = kept.get(file) ?? { mark: undefined, configuration: undefined, seen: undefined };
    if (found.mark === mark) return found.configuration;
    if (!hasSettled(found, files, mark)) return found.configuration ?? read(file);
    const configuration = read(file);
    // Changed between the look and the reading: what was read may be half of it.
    if (markOf(files) !== mark) return found.configuration ?? configuration;
    kept.set(file, { mark, configuration, seen: undefined });
    return configuration;
  };
}

function hasSettled(kept: Pick<Kept, 'seen'>, files: readonly string[], mark: string): boolean {
  const now = Date.now();
  if (kept.seen?.mark !== mark) kept.seen = { mark, at: now };
  return now - Math.max(...files.map(modifiedAt)) > SETTLED_AFTER_MS || now - kept.seen.at > SETTLED_AFTER_MS;
}

/** Infinite for a file that is not there: an editor may have taken it away for a moment. */
function modifiedAt(file: string): number {
  return look(file)?.mtimeMs ?? Number.POSITIVE_INFINITY;
}

/** Differs when a file was written, replaced, or came or went. */
function markOf(files: readonly string[]): string {
  return files
    .map((file) => {
      const found = look(file);
      return found ? [found.dev, found.ino, found.size, found.mtimeMs, found.ctimeMs].join(' ') : 'none';
    })
    .join('\n');
}

function look(file: string) {
  try {
    return statSync(file);
  } catch {
    return undefined;
  }
}
