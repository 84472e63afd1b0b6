// npm run interop: makes both tables of docs/interop.md, with every process model, client and front
// end that is available. It takes minutes of processor time, so npm test tries a part of them and
// compares the page with the lists.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CLIENTS, describeVersions, formatTable, HEADING, measure, PROCESS_MODELS } from './interop.ts';
import { FRONT_HEADING, FRONTS, measureFronts } from './interop-fronts.ts';
import { makeCertificates } from './secure-site.ts';

const PAGE = join(import.meta.dirname, '..', '..', 'docs', 'interop.md');

/** Replaces what is between `<!-- name -->` and the next comment by `text`. */
function replaceBlock(page: string, name: string, text: string): string {
  const block = new RegExp(`(<!-- ${name} -->\n).*?(<!-- end -->)`, 's');
  if (!block.test(page)) throw new Error(`${PAGE} has no block ${name}`);
  return page.replace(block, (_all, start: string, end: string) => `${start}\n${text}\n${end}`);
}

const certificates = makeCertificates();
try {
  const fronts = formatTable(FRONT_HEADING, await measureFronts(certificates, FRONTS));
  const clients = formatTable(HEADING, await measure(certificates, PROCESS_MODELS, CLIENTS));
  const versions = describeVersions().map((line) => `- ${line}\n`);
  let page = readFileSync(PAGE, 'utf8');
  page = replaceBlock(page, 'clients', clients);
  page = replaceBlock(page, 'versions', versions.join(''));
  page = replaceBlock(page, 'fronts', fronts);
  writeFileSync(PAGE, page);
  process.stdout.write(`${clients}\n${versions.join('')}\n${fronts}`);
} finally {
  certificates.remove();
}
