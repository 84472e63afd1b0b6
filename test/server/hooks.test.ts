// Hooks under httpd: their environment, that the payload arrives byte for byte, that limits hold
// whatever a hook does, and that nothing of it is left: no process, no spool file, no announced
// upload, no log line that it wrote by itself.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, beforeEach, describe, it } from 'node:test';
import { until } from '../support/cgi-scripts.ts';
import { type CommandSite, findProcesses, formatHead, readLines, startCommandSite } from '../support/hooks-site.ts';
import { part } from '../support/thorough.ts';
import { readFiles } from '../support/tree.ts';

/** Prints the facts of a command's environment, one a line. */
const TELL_WORLD = `#!/bin/sh
tr '\\0' '\\n' < /proc/$PPID/environ
pwd
echo "umask $(umask)"
echo "stdin $(cat | wc -c)"
echo "group and session $(cut -d ' ' -f 5,6 /proc/$$/stat), of $PPID"
grep -e SigIgn -e SigBlk /proc/self/status
ls -l /proc/self/fd
`;

/**
 * The descriptors that every process inherits from whatever started the tests; httpd must not add
 * to them.
 */
function strayDescriptors(): Set<string> {
  const { stdout } = spawnSync('/bin/ls', ['/proc/self/fd'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  return new Set(
    stdout
      .trim()
      .split('\n')
      .filter((fd) => Number(fd) > 3),
  );
}

/** Checks the output of TELL_WORLD; stdout and stderr are given as patterns. */
function checkWorld(told: string[], stdout: RegExp, stderr: RegExp): void {
  const stray = strayDescriptors();
  const lines = told
    .filter((line) => !line.startsWith('total '))
    .map((line) => line.replace(/^.* (\d+) -> /, 'fd $1 ').replaceAll(/\t|%09/g, ' '));
  const said = lines.filter((line) => !stray.has(/^fd (\d+) /.exec(line)?.[1] ?? ''));
  const facts = said.filter((line) => !line.startsWith('fd '));
  const [, group, shell] =
    /session (\d+) \d+, of (\d+)$/.exec(facts.find((line) => line.startsWith('group')) ?? '') ?? [];
  assert.deepEqual(facts, [
    'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    '/',
    'umask 0022',
    'stdin 0',
    `group and session ${group} ${group}, of ${shell}`,
    'SigBlk: 0000000000000000',
    'SigIgn: 0000000000000000',
  ]);
  const descriptors = said.filter((line) => line.startsWith('fd '));
  assert.equal(descriptors.length, 4, descriptors.join());
  assert.equal(descriptors[0], 'fd 0 /dev/null');
  assert.match(descriptors[1] ?? '', stdout);
  assert.match(descriptors[2] ?? '', stderr);
  // The directory that ls itself reads.
  assert.match(descriptors[3] ?? '', /^fd 3 \/proc\/\d+\/fd$/);
}

/** The contents of the only upload's files, by extension. */
function readGroup(its: CommandSite): Record<string, string> {
  return Object.fromEntries(
    [...readFiles(its.site.incoming)].map(([name, text]) => [name.replace(/^.*?\./, ''), text]),
  );
}

/**
 * Commands that try to leave something running; `$SLEEP` stands for a sleep that the test can find.
 */
const LEFTOVERS: [name: string, text: string][] = [
  ['a child in the background', '$SLEEP 1000 &'],
  ['a child whose parent has ended', '( ( $SLEEP 1000 & ) & )'],
  ['a child that ignores every polite signal', 'sh -c \'trap "" TERM HUP INT QUIT; while :; do $SLEEP 1000; done\' &'],
  ['a chain of which each starts the next and ends', '"$0" again & [ "$1" = again ] && $SLEEP 0.02 && exit'],
  [
    'a tree',
    'depth=$1; [ "$depth" ] || depth=5; [ $depth = 0 ] || { "$0" $((depth - 1)) & "$0" $((depth - 1)) & }; [ $# = 0 ] || $SLEEP 1000',
  ],
  ['a child that is stopped', '$SLEEP 1000 & kill -STOP $!'],
];

// Most of the time is spent waiting for limits.
describe('the script', { concurrency: true }, () => {
  for (const mpm of part(['prefork', 'event'] as const, 1)) {
    describe(`with hooks under ${mpm}`, { concurrency: false }, async () => {
      const its = await startCommandSite({ mpm });
      after(its.close);
      beforeEach(its.reset);
      afterEach(() => assert.deepEqual(readdirSync(its.spool), [], 'nothing is left in the spool folder'));
      const sleepPath = its.script('sleep', '#!/bin/sh\nexec sleep "$@"\n').replace(/sleep$/, '');
      const hook = (text: string): string =>
        its.script('hook.sh', `#!/bin/sh\n${text.replaceAll('$SLEEP', `${sleepPath}sleep`)}\n`);
      const useGetHook = (text: string, more: Record<string, string> = {}): void =>
        its.configure({ GetHookEnable: 'Y', GetHookCommandLine: hook(text), PutNameFormat: '%jid', ...more });
      const usePutHook = (text: string, more: Record<string, string> = {}, args = ''): void =>
        its.configure({
          PutHookEnable: 'Y',
          PutHookCommandLine: `${hook(text)} ${args}`,
          PutNameFormat: '%jid',
          ...more,
        });
      const upload = { jobId: 'a', out: 'out', err: 'error', env: 'env\n' };

      it('serves megabytes to the byte', async () => {
        useGetHook('yes 0123456789abcde | head -c 20000000; echo end');
        const { status, body } = await its.get();
        assert.equal(status, 200);
        const expected = Buffer.concat([Buffer.alloc(20_000_000, '0123456789abcde\n'), Buffer.from('end\n')]);
        assert.ok(body.equals(expected), `${body.length} bytes`);
        const [line] = readLines(its.site.logFile);
        assert.match(line ?? '', / 0 20000004 \d+ 200 -- Success$/);
      });

      it('gives a GetHook a PATH, an empty input, pipes, and nothing else', async () => {
        const script = its.script('world.sh', TELL_WORLD);
        // The shell that httpd's script starts must stay to be looked at.
        its.configure({
          GetHookEnable: 'Y',
          GetHookCommandLine: `${script}; :`,
        });
        const lines = (await its.get()).body.toString().trimEnd().split('\n');
        checkWorld(lines, /^fd 1 pipe:/, /^fd 2 pipe:/);
      });

      it('gives a PutHook the same, and pipes when its output is logged', async () => {
        const script = its.script('world.sh', TELL_WORLD);
        its.configure({ PutHookEnable: 'Y', PutHookCommandLine: `${script}; :`, PutHookLogDivertedOutput: 'Y' });
        assert.equal((await its.put(upload)).status, 200);
        const lines = its.commandLines('hook').filter(({ event }) => event === 'out');
        checkWorld(
          lines.map(({ message }) => message),
          /^fd 1 pipe:/,
          /^fd 2 pipe:/,
        );
      });

      for (const [name, text] of LEFTOVERS) {
        it(`leaves ${name} nowhere`, async () => {
          useGetHook(`${text}\necho made`);
          const { status, body } = await its.get();
          assert.deepEqual([status, body.includes('made')], [200, true]);
          await its.settled();
          usePutHook(`${text}\n:`);
          assert.equal((await its.put(upload)).status, 200);
          await its.settled();
        });
      }

      it('ends what a hook has left running before it answers', async () => {
        useGetHook(`$SLEEP 1000 &\n: > ${its.scratch}/begun\nhead -c 20000000 /dev/zero`);
        // A client that does not read keeps the script that ran the hook alive.
        const socket = connect(its.server.port, '127.0.0.1').pause();
        socket.write(formatHead('GET', {}));
        await until(() => readdirSync(its.scratch).includes('begun'), 'the start of the hook');
        await its.settled();
        assert.equal(findProcesses(join(its.site.cgiDirectory, 'nph-')).length, 1);
        socket.destroy();
      });

      it('ends a hook at its time limit, with everything it has started', async () => {
        const started = Date.now();
        const hanging = `${LEFTOVERS.map(([, line]) => line)
          .slice(0, 3)
          .join('\n')}\ntrap '' TERM\nwhile :; do $SLEEP 1000; done`;
        useGetHook(hanging, { GetHookTimeLimit: '1', GetHookLogDivertedOutput: 'Y' });
        assert.equal((await its.get()).status, 551);
        await its.settled();
        usePutHook(hanging, { PutHookTimeLimit: '1', PutHookLogDivertedOutput: 'Y' });
        assert.equal((await its.put(upload)).status, 551);
        await its.settled();
        assert.ok(Date.now() - started < 60_000, `both took ${Date.now() - started} ms`);
        const ends = its.commandLines('hook').map(({ name, event, message }) => `${name} ${event} ${message}`);
        const why = 'SIGKILL took longer than 1 seconds';
        assert.deepEqual(ends, [`GetHook ${why}`, `PutHook ${why}`]);
      });

      it('lets a hook wait for its own children', async () => {
        its.configure({ GetHookEnable: 'Y', GetHookCommandLine: '(sleep 0.1; echo first) & wait; echo second' });
        assert.equal((await its.get()).body.toString(), 'first\nsecond\n');
      });

      it('stops a flood of output before the disk fills', async () => {
        const seen = join(its.scratch, 'size');
        // A command that ignores the limit's signal, and tries again.
        useGetHook(
          `trap '' XFSZ PIPE\nyes; yes; find /proc/[0-9]*/fd -lname '${its.spool}/hook-*' -exec stat -L -c %s {} + 2>/dev/null | sort -n > ${seen}; exit 0`,
          { GetHookOutputLimit: '1000000' },
        );
        assert.equal((await its.get()).status, 551);
        const size = Number(readFileSync(seen, 'utf8').trim().split('\n').at(-1));
        assert.ok(size > 1_000_000 && size <= 1_000_000 + 1024, `${size} bytes were written`);
        useGetHook('yes', { GetHookOutputLimit: '1000000' });
        assert.equal((await its.get()).status, 551);
        assert.match(readLines(its.site.logFile).at(-1) ?? '', / 0 0 \d+ 551 -- Hook Failed: GetHook /);
      });

      it('stops a flood on stderr, and does not keep it', async () => {
        const line = 'x'.repeat(200);
        useGetHook(`yes ${line} >&2`, { GetHookLogDivertedOutput: 'Y' });
        assert.equal((await its.get()).status, 551);
        usePutHook(`yes ${line}`, { PutHookLogDivertedOutput: 'Y' });
        assert.equal((await its.put(upload)).status, 551);
        const lines = its.commandLines('hook');
        const kept = lines.filter(({ event }) => event === 'out' || event === 'err');
        const bytes = kept.reduce((sum, { message }) => sum + message.length + 1, 0);
        // The output of each hook up to its limit, and what the pipe still held.
        assert.ok(bytes > 2 * 65_000 && bytes <= 4 * 65_536, `${bytes} bytes were kept`);
        const ends = lines.filter((one) => !kept.includes(one)).map(({ name, message }) => `${name} ${message}`);
        assert.deepEqual(ends, ['GetHook printed more than 65536 bytes', 'PutHook printed more than 65536 bytes']);
        await its.settled();
      });

      it('discards stderr when it is not logged', async () => {
        useGetHook('yes | head -c 100000000 >&2; echo made');
        assert.equal((await its.get()).body.toString(), 'made\n');
        usePutHook('yes | head -c 100000000; yes | head -c 100000000 >&2');
        assert.equal((await its.put(upload)).status, 200);
        assert.deepEqual(
          its.commandLines('hook').map(({ event }) => event),
          ['0', '0'],
        );
        assert.ok(statSync(its.server.errorLog).size < 10_000, 'httpd was not told either');
      });

      it('logs the output of a hook in lines that it cannot forge', async () => {
        const forged = '2004-05-23 16:32:06 a client1 host.sh GetHook 1 0 -- Success';
        const hostile = its.script(
          'said',
          `${forged}\nclear\x1b[2J\x07\x00\r${forged}\n\n\x80\xff\x85\xc3\xa9\n${'y'.repeat(5000)}\n\t\nend`,
        );
        useGetHook(`cat ${hostile} >&2; exit 7`, { GetHookLogDivertedOutput: 'Y', GetHookStatus: '7' });
        assert.equal((await its.get()).status, 200);
        const text = readFileSync(join(its.site.base, 'logfiles/nph-webjob-hook.log'), 'latin1');
        assert.match(text, /^[\n\x20-\x7e]*$/);
        const lines = its.commandLines('hook');
        const jobId = readLines(its.site.logFile)[0]?.split(' ')[2];
        for (const line of lines) {
          assert.deepEqual(
            [line.name, line.jobId, line.clientId, line.fileName],
            ['GetHook', jobId, 'client1', 'host.sh'],
          );
        }
        assert.equal(new Set(lines.map(({ pid }) => pid)).size, 1);
        assert.deepEqual(
          lines.map(({ event }) => event),
          ['err', 'err', 'err', 'err', 'err', 'err', '7'],
        );
        assert.deepEqual(
          lines.map(({ message }) => message.slice(0, 100)),
          [
            forged,
            `clear%1b[2J%07%00%0d${forged}`,
            '%ef%bf%bd%ef%bf%bd%ef%bf%bd%c3%a9',
            'y'.repeat(100),
            '%09',
            'end',
            'Success',
          ],
        );
        assert.equal(lines[3]?.message.length, 1024);
      });

      for (const [how, text, event] of [
        ['exits with another status', 'exit 3', '3'],
        ['is ended by a signal', 'kill -USR1 $PPID; sleep 5', 'SIGUSR1'],
        ['cannot be found', '/nonexistent/command', '127'],
      ] as const) {
        it(`keeps the streams and announces nothing when a PutHook ${how}`, async () => {
          // The shell that is inspected must not be replaced by the script.
          usePutHook(text, {}, '|| exit $?');
          const { status, reason } = await its.put(upload);
          assert.deepEqual([status, reason], [551, 'Hook Failed']);
          assert.deepEqual(readGroup(its), { out: 'out', err: 'error', env: 'env\n' });
          assert.deepEqual(
            its.commandLines('hook').map((line) => line.event),
            [event],
          );
          assert.match(
            readLines(its.site.logFile)[0] ?? '',
            / a client1 127\.0\.0\.1 PUT client1 host\.sh 12 0 \d+ 551 -- Hook Failed: PutHook /,
          );
        });
      }

      it('lets a PutHook check the upload that replaces another', async () => {
        const settings = { OverwriteExistingFiles: 'Y', KeepDifferingUploads: 'N' };
        const list = `ls ${its.site.incoming} > ${its.scratch}/list; cat`;
        usePutHook(`${list} "$1" | grep -q good`, settings, '%out');
        const put = async (out: string): Promise<number> => (await its.put({ ...upload, out })).status;
        assert.equal(await put('good 1'), 200);
        assert.deepEqual(readGroup(its), { out: 'good 1', err: 'error', env: 'env\n', rdy: 'Jid=a\n' });
        assert.equal(await put('bad'), 551);
        assert.deepEqual(readGroup(its), { out: 'bad', err: 'error', env: 'env\n' });
        assert.equal(await put('good 2'), 200);
        assert.deepEqual(readGroup(its), { out: 'good 2', err: 'error', env: 'env\n', rdy: 'Jid=a\n' });
        // While a hook runs, the upload has its final names, and is locked instead of announced.
        assert.equal(await put('good 3'), 200);
        assert.equal(readFileSync(join(its.scratch, 'list'), 'utf8'), 'a.env\na.err\na.lck\na.out\n');
      });

      it('ends the hook of a client that disconnected', async () => {
        useGetHook('$SLEEP 1000', { GetHookTimeLimit: '1' });
        await leaveDuring(its, formatHead('GET', {}));
        usePutHook('$SLEEP 1000', { PutHookTimeLimit: '1' });
        await leaveDuring(its, `${formatHead('PUT', upload)}outerrorenv\n`);
        await until(() => readLines(its.site.logFile).length === 2, 'both lines of the log');
        assert.deepEqual(Object.keys(readGroup(its)), ['env', 'err', 'out']);
      });
    });

    describe(`with hooks that outlast the timeout of ${mpm}`, { concurrency: false }, async () => {
      const its = await startCommandSite({ mpm, before: 'Timeout 1' });
      after(its.close);

      it('has them ended soon after httpd killed the script', async () => {
        const path = its.script('hook.sh', '#!/bin/sh\ntrap "" TERM HUP\nsleep 900 &\nsleep 1000\n');
        its.configure({ GetHookEnable: 'Y', GetHookCommandLine: path, GetHookTimeLimit: '900' });
        await assert.rejects(its.get(), /an empty answer/);
        await its.settled();
        assert.deepEqual(readdirSync(its.spool), []);
      });
    });
  }
});

/** Sends a request, leaves when its hook runs, and waits until nothing of it runs. */
async function leaveDuring(its: CommandSite, request: string): Promise<void> {
  const socket = connect(its.server.port, '127.0.0.1').on('error', () => {});
  socket.write(request);
  await until(() => its.running().length > 0, 'the start of the hook');
  socket.destroy();
  await its.settled();
}
