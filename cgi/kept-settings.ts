// The settings in a persistent worker. They are read again when their file has changed and has then
// been left alone for a second: a half-written file would otherwise be taken for complete settings.
import { statSync } from 'node:fs';
import type { Configuration } from './settings.ts';

export type SettingsReader = (propertiesFile: string | undefined) => Configuration;

const SETTLED_AFTER_MS = 1000;

interface Kept {
  mark: string;
  configuration: Configuration;
  /** A stamp that differs from the current one, and since when it has been seen. */
  seen: { mark: string; at: number } | undefined;
}

/** Returns a reader that caches the settings. `defaultFiles` are tried when no file is named. */
export function keepSettings(read: SettingsReader, defaultFiles: readonly string[]): SettingsReader {
  const kept = new Map<string | undefined, Kept>();
  return (file) => {
    const files = file === undefined ? defaultFiles : [file];
    const mark = markOf(files);
    const found = kept.get(file) ?? { mark: undefined, configuration: undefined, seen: undefined };
    if (found.mark === mark) return found.configuration;
    if (!hasSettled(found, files, mark)) return found.configuration ?? read(file);
    const configuration = read(file);
    // The files changed while they were read, so the settings may be incomplete.
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

/**
 * When a file was last changed. Infinite for a file that does not exist, because an editor may have
 * removed it for a moment.
 */
function modifiedAt(file: string): number {
  return look(file)?.mtimeMs ?? Number.POSITIVE_INFINITY;
}

/** A mark that changes when any of the files is written, replaced, created or removed. */
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
