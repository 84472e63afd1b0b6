#!/bin/sh
# Expected: sendmail -t takes its recipients from To:, Cc: and Bcc:, in any order, as msmtp, ssmtp, dma and nullmailer do.
# Seen (Debian 12, esmtp 1.2-18): the header behind Bcc: is sent, and is not read for recipients when another one follows it.
# The people in it get no mail, and the exit code is 0. Name recipients on the command line, as webjobctl alert does.
set -u
. "$(dirname "$0")/packages.sh"

unpack esmtp=1.2-18+b1 libesmtp6=1.1.0-3.1~deb12u1
export LD_LIBRARY_PATH="$library"

# An SMTP server for one message: it prints its port, then the recipients.
cat >"$work/server.pl" <<'PERL'
use IO::Socket::INET;
$SIG{ALRM} = sub { exit 1 };
alarm 30;
$| = 1;
my $listener = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or exit 1;
print $listener->sockport, "\n";
my $peer = $listener->accept or exit 1;
$peer->autoflush;
print $peer "220 here\r\n";
while (my $line = <$peer>) {
  print "$1\n" if $line =~ /^RCPT TO:<(.*)>/i;
  if ($line =~ /^DATA/i) {
    print $peer "354 go on\r\n";
    while (my $text = <$peer>) { last if $text eq ".\r\n" }
  }
  print $peer $line =~ /^QUIT/i ? "221 bye\r\n" : "250 good\r\n";
  last if $line =~ /^QUIT/i;
}
PERL

# recipients_of HEADER...: who was asked for, sorted; sent is the exit code of esmtp.
recipients_of() {
  rm -f "$work/seen"
  perl "$work/server.pl" >"$work/seen" &
  server=$!
  started="$started $server"
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ -s "$work/seen" ] && break
    sleep 1
  done
  echo "hostname = localhost:$(sed -n 1p "$work/seen")" >"$work/rc"
  { printf '%s\n' 'From: a@example.org' "$@" 'Subject: s' '' text; } | "$work/root/usr/bin/esmtp" -C "$work/rc" -i -t
  sent=$?
  wait "$server"
  sed 1d "$work/seen" | sort | tr '\n' ' ' | sed 's/ $//' >"$work/recipients"
}

recipients_of 'Cc: cc@example.org' 'To: to@example.org' 'Bcc: bcc@example.org'
expect 'Bcc: last' 'bcc@example.org cc@example.org to@example.org' "$(cat "$work/recipients")"
recipients_of 'To: to@example.org' 'Bcc: bcc@example.org' 'Cc: cc@example.org'
expect 'Bcc: before Cc:' 'bcc@example.org to@example.org' "$(cat "$work/recipients")"
expect 'exit code without the Cc:' 0 "$sent"
recipients_of 'Bcc: bcc@example.org' 'To: to@example.org'
expect 'Bcc: before To:' 'bcc@example.org' "$(cat "$work/recipients")"
