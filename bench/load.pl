#!/usr/bin/perl
# Sends requests like a WebJob client, each on a connection of its own, until the server ends it. In
# Perl, because the load runs on the machine that is measured, and Node's sockets would use as much
# processor time as a fast server.
#
# Arguments: port, clients, seconds, bytes of a request body, bytes expected in an answer. Reads the
# header of a request from stdin; @JOB@ in it becomes a job id. Prints the milliseconds of each
# request, and finally the seconds of all; exits with 1 and the reason unless every answer is a
# complete 200.
use strict;
use warnings;
use Errno qw(EAGAIN);
use Fcntl;
use Socket;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

use constant TIME_LIMIT_SECONDS => 600;
use constant PIECE => 'webjob-' x 37449;

my ($port, $clients, $seconds, $sent_bytes, $expected_bytes) = @ARGV;
my $head = do { local $/; <STDIN> };
my $address = pack_sockaddr_in($port, inet_aton('127.0.0.1'));
$SIG{PIPE} = 'IGNORE';

my $started_at = now();
my $count = 0;
my @milliseconds;
# Requests by descriptor, and the sets of descriptors for select().
my %requests;
my ($reading, $writing) = ('', '');
begin() for 1 .. $clients;
while (%requests) {
  select(my $readable = $reading, my $writable = $writing, undef, TIME_LIMIT_SECONDS) or die("no answer\n");
  for my $request (values(%requests)) {
    send_more($request) if vec($writable, $request->{fd}, 1);
    receive($request) if vec($readable, $request->{fd}, 1);
  }
}
print map { sprintf("%.4f\n", $_) } @milliseconds, now() - $started_at;

sub now { return clock_gettime(CLOCK_MONOTONIC) }

sub begin {
  my $begun_at = now();
  socket(my $socket, PF_INET, SOCK_STREAM, 0) or die("socket: $!\n");
  connect($socket, $address) or die("connect: $!\n");
  fcntl($socket, F_SETFL, O_NONBLOCK) or die("fcntl: $!\n");
  my $job = "bench_${$}_" . ++$count;
  (my $bytes = $head) =~ s/\@JOB\@/$job/g;
  my $request = { socket => $socket, fd => fileno($socket), begun_at => $begun_at, bytes => $bytes, left => $sent_bytes, answer => '' };
  $requests{$request->{fd}} = $request;
  vec($reading, $request->{fd}, 1) = 1;
  send_more($request);
}

# Sends as much as the server accepts at once.
sub send_more {
  my ($request) = @_;
  while (1) {
    if (length($request->{bytes}) < length(PIECE) && $request->{left} > 0) {
      my $piece = $request->{left} < length(PIECE) ? substr(PIECE, 0, $request->{left}) : PIECE;
      $request->{bytes} .= $piece;
      $request->{left} -= length($piece);
    }
    last if $request->{bytes} eq '';
    my $sent = syswrite($request->{socket}, $request->{bytes});
    last if !defined($sent) && $! == EAGAIN;
    substr($request->{bytes}, 0, $sent // die("the server does not read: $!\n"), '');
  }
  vec($writing, $request->{fd}, 1) = $request->{bytes} ne '';
}

# Reads what has arrived; at the end of an answer the next request begins.
sub receive {
  my ($request) = @_;
  my $received = sysread($request->{socket}, $request->{answer}, 65536, length($request->{answer})) // die("no answer: $!\n");
  return if $received > 0;
  push(@milliseconds, 1000 * (now() - $request->{begun_at}));
  check($request->{answer});
  delete($requests{$request->{fd}});
  vec($reading, $request->{fd}, 1) = vec($writing, $request->{fd}, 1) = 0;
  close($request->{socket});
  begin() if now() - $started_at < $seconds;
}

sub check {
  my ($answer) = @_;
  my ($status) = $answer =~ /\A([^\r\n]*)/;
  die("answered with $status\n") unless $status =~ m{\AHTTP/1\.1 200 };
  my $end = index($answer, "\r\n\r\n");
  my $bytes = length($answer) - $end - 4;
  die("$bytes bytes in place of $expected_bytes\n") unless $end >= 0 && $bytes == $expected_bytes;
}
