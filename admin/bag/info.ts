// bag-info.txt, the metadata of a package (RFC 8493, section 2.2.2), and the prompts for missing
// fields.
import { createInterface } from 'node:readline/promises';
import { countOf } from '../../cli/counts.ts';
import { Failure } from '../../cli/failure.ts';
import { operatorName } from '../../evidence/events.ts';

export interface PackageInfo {
  caseNumber: string | undefined;
  examiner: string;
  description: string | undefined;
}

export type GivenInfo = { [Name in keyof PackageInfo]: string | undefined };

/**
 * Asks on a terminal for missing fields. Without a terminal, the examiner is the user who runs the
 * command. Throws Failure `usage`.
 */
export async function completeInfo(given: GivenInfo, mayAsk: boolean): Promise<PackageInfo> {
  const info = { ...given };
  if (mayAsk && process.stdin.isTTY && process.stderr.isTTY) {
    const terminal = createInterface({ input: process.stdin, output: process.stderr });
    try {
      info.caseNumber ??= await ask(terminal, 'case number');
      info.examiner ??= await ask(terminal, `examiner [${operatorName()}]`);
      info.description ??= await ask(terminal, 'description');
    } finally {
      terminal.close();
    }
  }
  for (const [name, value] of Object.entries(info))
    if (value !== undefined && /[\p{Cc}\p{Zl}\p{Zp}]/u.test(value))
      throw new Failure('usage', `the ${name === 'caseNumber' ? 'case number' : name} is not one line of text`);
  return { ...info, examiner: info.examiner ?? operatorName() };
}

async function ask(terminal: { question(text: string): Promise<string> }, what: string): Promise<string | undefined> {
  return (await terminal.question(`${what}: `)).trim() || undefined;
}

/** Formats bag-info.txt. */
export function formatInfo(
  { caseNumber, examiner, description }: PackageInfo,
  { site, madeAt, version, oxum, jobs }: { site: string; madeAt: Date; version: string; oxum: string; jobs: number },
): string {
  const rows: [string, string | undefined][] = [
    ['Case-Number', caseNumber],
    ['Examiner', examiner],
    ['External-Description', description],
    ['External-Identifier', `${site}, ${countOf(jobs, 'job')}`],
    ['Bagging-Date', madeAt.toISOString().slice(0, 10)],
    ['Bagging-Time', madeAt.toISOString()],
    ['Payload-Oxum', oxum],
    ['Bag-Software-Agent', `webjobctl ${version}`],
  ];
  return rows.flatMap(([name, value]) => (value === undefined ? [] : `${name}: ${value}\n`)).join('');
}
