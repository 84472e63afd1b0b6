// A process that appends records to a custody record as fast as it can, and reports each when it is
// on disk: `node custody-writer.ts FILE WRITER COUNT [SEGMENTLIMIT]`.
import { writeSync } from 'node:fs';
import { appendCustody } from '../../cgi/locker/index.ts';

const [file = '', writer, count, limit] = process.argv.slice(2);
const growth = { mayCreate: true, segmentLimit: limit === undefined ? undefined : Number(limit) };
for (let number = 0; number < Number(count); number++) {
  // Some are longer than a page and than what a writer reads back at once.
  const filling = 'x'.repeat(number % 7 === 0 ? 9000 : 10);
  appendCustody(file, { event: 'deposit', name: `${writer}_${number}`, filling }, growth);
  writeSync(1, `${writer}_${number}\n`);
}
