// Triggers under httpd: they run after the answer and independently of the process that started
// them, inherit nothing, see complete uploads, run only when something was served or stored, and
// leave two lines in their log.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, beforeEach, describe, it } from 'node:test';
import type { CommandLogLine } from 'webjob-protocol';
import { until } from '../support/cgi-scripts.ts';
import { findProcesses, giveAway, type Put, readLines, startCommandSite } from '../support/hooks-site.ts';
import { part } from '../support/thorough.ts';

const LIMIT_MS = 60_000;

for (const mpm of part(['prefork', 'event'] as const, 1)) {
  describe(`triggers under ${mpm}`, async () => {
    const its = await startCommandSite({ mpm });
    after(its.close);
    beforeEach(its.reset);
    afterEach(its.settled);
    const log = join(its.site.base, 'logfiles/nph-webjob-trigger.log');
    const made = (name: string): string => join(its.scratch, name);
    const exists = (name: string): boolean => readdirSync(its.scratch).includes(name);
    /** A trigger of both services: a script that begins with the given lines. */
    const use = (text: string, args = '', more: Record<string, string> = {}): void => {
      const line = `${its.script('trigger.sh', `#!/bin/sh\n${text}\n`)} ${args}`;
      const forGet = args.includes('%rdy') ? {} : { GetTriggerEnable: 'Y', GetTriggerCommandLine: line };
      its.configure({ ...forGet, PutTriggerEnable: 'Y', PutTriggerCommandLine: line, PutNameFormat: '%jid', ...more });
    };
    const logged = async (count: number): Promise<CommandLogLine[]> => {
      await until(() => readLines(log).length >= count, `${count} lines of nph-webjob-trigger.log`);
      return its.commandLines('trigger');
    };
    const upload: Put = { jobId: 'a', out: 'out', err: 'error', env: 'env\n' };

    for (const method of ['get', 'put'] as const) {
      it(`run after the answer to a ${method.toUpperCase()}, and longer than its script and its connection`, async () => {
        // Waits for a file that the test makes only when everything else of the request is gone.
        use(`echo $$ > ${made('pid')}\nwhile [ ! -e ${made('go')} ]; do sleep 0.05; done\n: > ${made('done')}`);
        const { status } = await its[method](upload);
        assert.equal(status, 200);
        await until(() => findProcesses(join(its.site.cgiDirectory, 'nph-')).length === 0, 'the end of the script');
        await until(() => exists('pid'), 'the start of the trigger');
        assert.equal((await logged(1)).length, 1, 'it has not ended');
        assert.equal((await its.get({ clientId: 'client2' })).status, 453, 'httpd goes on');
        writeFileSync(made('go'), '');
        const lines = await logged(2);
        assert.ok(exists('done'));
        assert.deepEqual(
          lines.map(({ event, message }) => [event, message]),
          [
            [undefined, 'started'],
            ['0', 'ended'],
          ],
        );
      });
    }

    it('inherit no descriptor of the script, and only a PATH', async () => {
      use(`tr '\\0' '\\n' < /proc/$PPID/environ > ${made('environ')}
found=$(readlink /proc/$$/fd/[0-2] /proc/$PPID/fd/[0-2]); echo "$found" > ${made('descriptors')}
cut -d ' ' -f 6 /proc/$$/stat > ${made('session')}
pwd > ${made('folder')}`);
      assert.equal((await its.put(upload)).status, 200);
      const [started] = await logged(2);
      const read = (name: string): string => readFileSync(made(name), 'utf8').trim();
      // Variables that shells add.
      const environment = read('environ')
        .split('\n')
        .filter((line) => !/^(?:PWD|OLDPWD|SHLVL|_)=/.test(line));
      assert.deepEqual(environment, ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin']);
      assert.deepEqual(read('descriptors').split('\n'), Array(6).fill('/dev/null'));
      assert.equal(read('folder'), '/');
      // A session that is neither httpd's nor the test's.
      assert.ok(
        !readFileSync(`/proc/${its.server.pid}/stat`, 'latin1').split(' ').slice(5, 6).includes(read('session')),
      );
      assert.ok(started && Number(read('session')) <= started.pid);
    });

    it('see the upload complete and announced', async () => {
      use(
        `ls ${its.site.incoming} > ${made('list')}\ncat "$1" "$2" "$3" "$4" > ${made('content')}`,
        '%rdy %out %err %env',
      );
      const out = 'x'.repeat(300_000);
      assert.equal((await its.put({ ...upload, out })).status, 200);
      await logged(2);
      assert.equal(readFileSync(made('list'), 'utf8'), 'a.env\na.err\na.out\na.rdy\n');
      assert.equal(readFileSync(made('content'), 'utf8'), `Jid=a\n${out}errorenv\n`);
    });

    it('run only for a 200', async () => {
      const count = (): number => (exists('runs') ? readLines(made('runs')).length : 0);
      use(`echo "$1" >> ${made('runs')}`, '%cmd');
      const statuses = [
        await its.put({ ...upload, runType: 'linktest' }),
        await its.get({ fileName: 'none.sh' }),
        await its.get({ clientId: 'client2' }),
        await its.put({ ...upload, jobId: 'b', clientId: 'client2' }),
        await its.put({ ...upload, jobId: 'a', fileName: 'a b' }),
        await its.put(upload),
        await its.put({ ...upload, out: 'other' }),
      ].map(({ status }) => status);
      use(`echo "$1" >> ${made('runs')}`, '%cmd', { PutHookEnable: 'Y', PutHookCommandLine: 'false' });
      statuses.push((await its.put({ ...upload, jobId: 'c' })).status);
      use(`echo "$1" >> ${made('runs')}`, '%cmd');
      statuses.push((await its.get()).status);
      assert.deepEqual(statuses, [251, 404, 453, 453, 400, 200, 451, 551, 200]);
      await logged(4);
      await its.settled();
      assert.equal(count(), 2);
      assert.deepEqual(new Set((await logged(4)).map(({ name }) => name)), new Set(['PutTrigger', 'GetTrigger']));
      its.configure({ PutNameFormat: '%jid' });
      assert.equal((await its.put({ ...upload, jobId: 'd' })).status, 200);
      assert.equal(count(), 2, 'and only where it is enabled');
    });

    for (const [how, text, event] of [
      ['exits with a status', 'exit 42', '42'],
      ['is killed', 'kill -KILL $$', '137'],
      ['does not exist', 'exec /nonexistent/command', '127'],
      ['floods', 'yes | head -c 50000000; yes | head -c 50000000 >&2', '0'],
    ] as const) {
      it(`are logged when the command ${how}`, async () => {
        use(`echo $PPID > ${made('parent')}\n${text}`);
        assert.equal((await its.get()).status, 200);
        const lines = await logged(2);
        const issued = readLines(its.site.logFile)[0]?.split(' ')[2];
        for (const { name, jobId, clientId, fileName } of lines) {
          assert.deepEqual([name, jobId, clientId, fileName], ['GetTrigger', issued, 'client1', 'host.sh']);
        }
        assert.deepEqual(
          lines.map((line) => [line.event, line.message]),
          [
            [undefined, 'started'],
            [event, 'ended'],
          ],
        );
        assert.equal(lines[0]?.pid, lines[1]?.pid);
        assert.equal(readLines(its.site.logFile).length, 1);
      });
    }

    it('are logged in lines that no job id can break', async () => {
      use(':');
      const jobId = `%d%s%n\\n$(id)\`id\`"'${'x'.repeat(200)}`;
      its.configure({ PutTriggerEnable: 'Y', PutTriggerCommandLine: ':', PutNameFormat: '%pid' });
      assert.equal((await its.put({ ...upload, jobId })).status, 200);
      for (const line of await logged(2)) assert.equal(line.jobId, jobId.replaceAll('%', '%25'));
    });

    it('are logged in the time that UseGMT selects', async () => {
      for (const UseGMT of ['Y', 'N']) {
        its.reset();
        use(':', '', { UseGMT });
        const before = Date.now();
        assert.equal((await its.get()).status, 200);
        for (const { time } of await logged(2)) {
          const at = new Date(`${time.replace(' ', 'T')}${UseGMT === 'Y' ? 'Z' : ''}`).getTime();
          assert.ok(at >= before - 1000 && at <= Date.now(), `${time} with UseGMT=${UseGMT}`);
        }
      }
    });

    it('run, with a message in the error log, when their own cannot be written', async () => {
      use(`: > ${made('ran')}`);
      rmSync(log);
      mkdirSync(log);
      try {
        assert.equal((await its.get()).status, 200);
        await until(() => exists('ran') && its.errors().includes('nph-webjob: GetTrigger: EISDIR'), 'both');
        assert.match(readLines(its.site.logFile)[0] ?? '', / 200 -- Success$/);
      } finally {
        rmSync(log, { recursive: true });
        writeFileSync(log, '');
        giveAway(log);
      }
    });

    it('leave two lines for each of many concurrent requests', async () => {
      use(':');
      const deadline = Date.now() + LIMIT_MS;
      const answers = await Promise.all(Array.from({ length: 12 }, () => its.get()));
      assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
      const lines = await logged(24);
      assert.ok(Date.now() < deadline);
      const ids = answers.map(({ headers }) => headers.get('job-id'));
      for (const id of ids) {
        const own = lines.filter(({ jobId }) => jobId === id);
        assert.deepEqual(
          own.map(({ message }) => message),
          ['started', 'ended'],
        );
      }
    });
  });
}
