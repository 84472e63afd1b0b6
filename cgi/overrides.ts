// Settings for one command, one client, or one command of one client, which override those of the
// main file (docs/protocol.md, section 4).
import { closeSync, readFileSync } from 'node:fs';
import { type Entry, parseKeyValue } from 'webjob-conf';
import { openContained, UnusableFile } from './contained.ts';
import { logProblem } from './log.ts';
import { Refusal } from './refusal.ts';
import { JOB_CONTROLS, type ServerSettings, SITE_CONTROLS } from './setting-table.ts';
import { buildSettings, collectControls, type GivenControls } from './settings.ts';

/**
 * The settings for a client and a command; `given` are those of the main file. A setting that only
 * the main file may change is reported through `tell` and has no effect. Throws Refusal 550 for a
 * file that cannot be read or a value that is not allowed.
 */
export function overrideSettings(
  settings: ServerSettings,
  given: GivenControls,
  clientId: string,
  fileName: string,
  tell = logProblem,
): ServerSettings {
  const client = `clients/${clientId}`;
  return applyOverrides(settings, given, [`commands/${fileName}`, client, `${client}/commands/${fileName}`], tell);
}

/**
 * The settings for a client, whatever command it asks for: overrides for commands are left out.
 * Throws Refusal 550.
 */
export function overrideClientSettings(
  settings: ServerSettings,
  given: GivenControls,
  clientId: string,
): ServerSettings {
  if (!settings.enableConfigOverrides) return settings;
  return applyOverrides(settings, given, [`clients/${clientId}`], () => {});
}

function applyOverrides(
  settings: ServerSettings,
  given: GivenControls,
  folders: readonly string[],
  tell: typeof logProblem,
): ServerSettings {
  const root = `${settings.configDirectory}/nph-webjob`;
  const overrides = folders.flatMap((folder) => readOverrides(root, `${folder}/nph-webjob.cfg`, tell));
  if (overrides.length === 0) return settings;
  const problems: string[] = [];
  const overridden = buildSettings(new Map([...given, ...overrides]), problems);
  if (problems.length > 0) throw new Refusal(550, problems.join('; '));
  return overridden;
}

function readOverrides(
  root: string,
  file: string,
  tell: typeof logProblem,
): [string, { value: string; place: string }][] {
  const entries = readEntries(root, file).filter(({ key, line }) => {
    const isNamed = (control: { key: string }): boolean => control.key.toLowerCase() === key.toLowerCase();
    if (SITE_CONTROLS.some(isNamed)) tell(`${file} line ${line}: ${key} cannot be overridden`);
    return JOB_CONTROLS.some(isNamed);
  });
  return [...collectControls(entries, `${file} `)];
}

function readEntries(root: string, file: string): Entry[] {
  try {
    const opened = openContained(root, file);
    if (!opened) return [];
    try {
      return parseKeyValue(readFileSync(opened.fd, 'utf8')).entries;
    } finally {
      closeSync(opened.fd);
    }
  } catch (error) {
    if (error instanceof UnusableFile) throw new Refusal(550, `${file}: ${error.message}`);
    throw error;
  }
}
