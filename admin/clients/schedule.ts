// How a client fetches its batch periodically: files of the client kit for cron or a systemd timer.
// What runs, and when, is decided on the server.
import { InvalidArgumentError } from 'commander';
import { newHash } from 'webjob-locker';
import { quote } from '../../cli/shell.ts';
import { secondsIn } from '../../cli/spans.ts';

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;

/**
 * Parses a DURATION in seconds that divides an hour or a day, so that cron can express it. Throws
 * InvalidArgumentError.
 */
export function parseSchedule(text: string): number {
  const seconds = secondsIn(text) ?? 0;
  const fits = seconds >= MINUTE && seconds % MINUTE === 0 && (seconds < HOUR ? HOUR % seconds : DAY % seconds) === 0;
  if (fits && (seconds < HOUR || seconds % HOUR === 0)) return seconds;
  throw new InvalidArgumentError('a schedule is minutes that divide an hour, or hours that divide a day: 10m, 1h, 1d.');
}

export interface Scheduled {
  client: string;
  seconds: number;
  /** The path of webjob.conf on the client. */
  conf: string;
  /** The name of the batch command on the server. */
  batchCommand: string;
  isForC: boolean;
}

/** The files by their names in the kit. */
export function formatSchedule(scheduled: Scheduled): Record<(typeof SCHEDULE_FILES)[number], string> {
  const { client, conf } = scheduled;
  const command = commandOf(scheduled);
  const what = `# Runs the assignments of ${client} (webjobctl assign). Its webjob.conf must be ${quote(conf)}.\n`;
  return {
    'webjob.cron': `${what}# It goes to /etc/cron.d/webjob-batch, and belongs to root.
PATH=/usr/local/bin:/usr/bin:/bin
${cronFields(scheduled)} root ${command.replaceAll('%', '\\%')}
`,
    'webjob-batch.service': `${what}# It goes to /etc/systemd/system.
[Unit]
Description=WebJob batch
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
Environment=PATH=/usr/local/bin:/usr/bin:/bin
ExecStart=/usr/bin/env ${command.replaceAll('%', '%%')}
`,
    'webjob-batch.timer': `# It goes to /etc/systemd/system; then: systemctl enable --now webjob-batch.timer
[Unit]
Description=WebJob batch

[Timer]
OnCalendar=${calendarOf(scheduled)}
RandomizedDelaySec=${Math.min(scheduled.seconds, HOUR)}
FixedRandomDelay=true
Persistent=true

[Install]
WantedBy=timers.target
`,
  };
}

export const SCHEDULE_FILES = ['webjob.cron', 'webjob-batch.service', 'webjob-batch.timer'] as const;

/** This client runs a batch without a shell; a C client runs it as a program. */
function commandOf({ conf, batchCommand, isForC }: Scheduled): string {
  return `webjob ${isForC ? '-e' : '--batch'} -f ${quote(conf)} ${quote(batchCommand)}`;
}

/** Each client has its own minute, so that ten thousand do not connect at once. */
function cronFields({ client, seconds }: Scheduled): string {
  const offset = Buffer.from(newHash().update(client).digest('hex'), 'hex').readUInt32BE(0) % (seconds / MINUTE);
  const [hour, minute] = [Math.floor(offset / 60), offset % 60];
  const every = (first: number, last: number, step: number): string =>
    step === 1 ? '*' : last - first < step ? String(first) : `${first}-${last}/${step}`;
  if (seconds < HOUR) return `${every(minute, 59, seconds / MINUTE)} * * * *`;
  return `${minute} ${every(hour, 23, seconds / HOUR)} * * *`;
}

function calendarOf({ seconds }: Scheduled): string {
  if (seconds < HOUR) return `*:0/${seconds / MINUTE}`;
  return seconds === DAY ? '*-*-* 00:00:00' : `*-*-* 0/${seconds / HOUR}:00:00`;
}
