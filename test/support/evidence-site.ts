// The verdicts of verify and report on the uploads of a site, for comparison: both must agree on
// each.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Site } from '../../scripts/site.ts';
import { parseLines, runWebjobctl } from './operator.ts';

/** An upload as the report shows it. */
export interface Opinion {
  look: string;
  words: string;
  /** The page of its job as text. */
  page: string;
}

/** The findings of verify in order, each as `kind place`. */
export async function verifyAs(configs: readonly string[], ...args: string[]): Promise<string[]> {
  const options = configs.flatMap((config) => ['--config', config]);
  const { stdout, stderr, code } = await runWebjobctl(['--json', ...options, 'verify', ...args]);
  if (code !== 0 && code !== 1) throw new Error(`verify: ${code}: ${stderr}`);
  const lines = parseLines<{ kind: string; place: string }>(stdout);
  lines.pop();
  return lines.map(({ kind, place }) => `${kind} ${place}`).sort();
}

/**
 * Makes a report; returns the verdict on each upload of a job with a page, and the overview as
 * text.
 */
export async function reportAs(site: Site): Promise<{ uploads: Map<string, Opinion>; overview: string }> {
  const folder = join(site.root, 'report');
  const args = ['--config', site.propertiesFile, 'report', '--html', folder, '--since', '2000-01-01'];
  const { code, stderr } = await runWebjobctl(args);
  if (code !== 0) throw new Error(`report: ${code}: ${stderr}`);
  return { uploads: readOpinions(folder), overview: textOf(readFileSync(join(folder, 'index.html'), 'utf8')) };
}

/** The verdicts on the pages of a report; an upload in an archive is named ARCHIVE:NAME. */
export function readOpinions(folder: string): Map<string, Opinion> {
  const uploads = new Map<string, Opinion>();
  for (const name of readdirSync(join(folder, 'job'))) {
    const page = readFileSync(join(folder, 'job', name), 'utf8');
    const [, file] = /<th scope="row">Files<\/th><td><span class="path">([^<]*)<\/span>/.exec(page) ?? [];
    const [, look = '', words = ''] = /<a class="state (\w+)" href="#verification">([^<]*)<\/a>/.exec(page) ?? [];
    const [, pack] = /<\/span>, in the archive ([\d.-]+)</.exec(page) ?? [];
    if (file !== undefined)
      uploads.set(pack === undefined ? file : `${pack}: ${file}`, { look, words, page: textOf(page) });
  }
  return uploads;
}

function textOf(page: string): string {
  return page
    .replace(/^.*<main/s, '<main')
    .replace(/<\/main>.*$/s, '')
    .replace(/<[^>]*>/g, ' ')
    .replace(/\s+/g, ' ');
}
