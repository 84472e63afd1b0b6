// A process that points a link at one target and then the other, atomically and repeatedly, until
// it is ended: link-swapper.ts <link> <target> <target>
import { renameSync, symlinkSync } from 'node:fs';

const [link = '', ...targets] = process.argv.slice(2);
process.stdout.write('swapping\n');
for (;;) {
  for (const target of targets) {
    symlinkSync(target, `${link}.next`);
    renameSync(`${link}.next`, link);
  }
}
