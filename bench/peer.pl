#!/usr/bin/perl
# The peer in bench/all.ts: an nph script in Perl that does the work of a request. It reads settings,
# query, user and file, and writes the log; a PUT writes three streams and the ready file. It syncs
# nothing, and checks less.
use strict;
use POSIX qw(strftime);

my %cfg = (FolderList => 'common', ServerId => 'server_1', PutNameFormat => '%jid');
open(my $file, '<', $ENV{WEBJOB_PROPERTIES_FILE}) or answer(550, 'Internal Server Initialization Error');
while (<$file>) {
  s/#.*//;
  $cfg{$1} = $2 if /^\s*([A-Za-z0-9]+)\s*=\s*(.*?)\s*$/;
}
close($file);
my $base = $cfg{BaseDirectory};
my %query = map { my ($name, $value) = split(/=/, $_, 2); $value =~ tr/+/ /; ($name, $value) } split(/&/, $ENV{QUERY_STRING});
my ($client, $name) = ($query{CLIENTID}, $query{FILENAME});
answer(450, 'Invalid Query') unless $client =~ /^[A-Za-z0-9_.-]{1,64}$/ && $name =~ /^[A-Za-z0-9_.-]{1,64}$/;
answer(452, 'Username Undefined') unless defined $ENV{REMOTE_USER};
answer(453, 'Username-ClientId Mismatch') unless $ENV{REMOTE_USER} eq $client;
answer(454, 'Content-Length Undefined') unless $ENV{CONTENT_LENGTH} =~ /^[0-9]+$/;

if ($ENV{REQUEST_METHOD} eq 'GET') {
  for my $folder ($client, split(/:/, $cfg{FolderList})) {
    for my $path ("$base/profiles/$folder/commands/$name", "$base/profiles/$folder/$name") {
      next unless -f $path;
      open(my $command, '<', $path) or answer(457, 'File Not Available');
      binmode($command);
      local $/;
      answer(200, 'OK', scalar <$command>);
    }
  }
  answer(404, 'Not Found');
}
answer(405, 'Method Not Allowed') unless $ENV{REQUEST_METHOD} eq 'PUT';
my $total = $query{STDOUT_LENGTH} + $query{STDERR_LENGTH} + $query{STDENV_LENGTH};
answer(456, 'Content-Length Mismatch') unless $total == $ENV{CONTENT_LENGTH};
my $path = "$base/incoming/${client}_$ENV{HTTP_JOB_ID}_$name";
answer(451, 'File Already Exists') if -e "$path.rdy";
binmode(STDIN);
for my $stream (qw(out err env)) {
  my $left = $query{'STD' . uc($stream) . '_LENGTH'};
  open(my $to, '>', "$path.$stream") or answer(500, 'Internal Server Error');
  binmode($to);
  while ($left > 0) {
    my $count = read(STDIN, my $bytes, $left < 65536 ? $left : 65536) or answer(456, 'Content-Length Mismatch');
    print $to $bytes;
    $left -= $count;
  }
  close($to);
}
open(my $ready, '>', "$path.rdy") or answer(500, 'Internal Server Error');
print $ready "Jid=$ENV{HTTP_JOB_ID}\n";
close($ready);
answer(200, 'OK');

sub answer {
  my ($status, $reason, $content) = @_;
  my $length = length($content // '');
  my $id = sprintf('%s_%010d_%05d', $cfg{ServerId}, time, $$);
  if (defined $base && open(my $log, '>>', "$base/logfiles/nph-webjob.log")) {
    my $time = strftime('%Y-%m-%d %H:%M:%S', localtime);
    syswrite($log, "$time $id $ENV{REMOTE_USER} $ENV{REMOTE_ADDR} $ENV{REQUEST_METHOD} $client $name $ENV{CONTENT_LENGTH} $length 0 $status -- $reason\n");
    close($log);
  }
  binmode(STDOUT);
  print "HTTP/1.1 $status $reason\r\nServer: $ENV{SERVER_SOFTWARE}\r\nContent-Type: application/octet-stream\r\nJob-Id: $id\r\nContent-Length: $length\r\n\r\n", $content // '';
  exit(0);
}
