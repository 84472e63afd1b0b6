// A process that looks for signatures, so that its messages about invalid ones can be discarded:
// hooks-signature-reader.ts <root>. Reads a JSON list of paths, prints the list of results.
import { readFileSync } from 'node:fs';
import { findSignature } from '../../cgi/signature.ts';

const [root = ''] = process.argv.slice(2);
const paths = JSON.parse(readFileSync(0, 'utf8')) as string[];
process.stdout.write(JSON.stringify(paths.map((path) => findSignature(root, path) ?? null)));
