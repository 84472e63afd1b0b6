#!/usr/bin/perl -w
# Stores and logs uploads as the original server does, which claims a name with flock and a check of
# the existing files: it truncates and locks .lck, refuses when a file of the upload exists, writes
# each file under a lock, and removes .lck at the end.
#
#   legacy-writer.pl INCOMING LOG
#
# Reads one upload from each line, `name jid out err env stop`: the base name, the job id, the bytes
# of each stream, and the step before which it prints the step and waits for a line (- for none):
# lock, look, write, middle, ready, refuse. Answers each upload with its status.
use strict;
use Fcntl qw(:flock);
use POSIX qw(strftime);

my ($incoming, $log) = @ARGV;
umask(022);
$| = 1;

while (my $line = <STDIN>) {
  my ($name, $jid, $out, $err, $env, $stop) = split(' ', $line);
  my %length = (out => $out, err => $err, env => $env);
  my $status = store("$incoming/$name", $jid, \%length, $stop);
  append($name, $jid, $out + $err + $env, $status);
  print "$status\n";
}

# Lets the reader of the answers run other writers before this step.
sub at {
  my ($step, $stop) = @_;
  return unless $step eq $stop;
  print "$step\n";
  <STDIN>;
}

sub store {
  my ($base, $jid, $length, $stop) = @_;
  at('lock', $stop);
  open(my $lock, '>', "$base.lck") or return 500;
  flock($lock, LOCK_EX);
  at('look', $stop);
  foreach my $extension (qw(out err env rdy)) {
    next unless -e "$base.$extension";
    at('refuse', $stop);
    unlock($lock, "$base.lck");
    return 451;
  }
  at('write', $stop);
  foreach my $stream (qw(out err env)) {
    my $text = content($jid, $stream, $length->{$stream});
    open(my $file, '>', "$base.$stream") or return 500;
    binmode($file);
    flock($file, LOCK_EX);
    my $half = int(length($text) / 2);
    syswrite($file, substr($text, 0, $half));
    at('middle', $stop) if $stream eq 'out';
    syswrite($file, substr($text, $half));
    flock($file, LOCK_UN);
    close($file);
  }
  at('ready', $stop);
  open(my $ready, '>', "$base.rdy") or return 500;
  flock($ready, LOCK_EX);
  print $ready "Jid=$jid\n";
  flock($ready, LOCK_UN);
  close($ready);
  unlock($lock, "$base.lck");
  return 200;
}

sub unlock {
  my ($lock, $path) = @_;
  flock($lock, LOCK_UN);
  close($lock);
  unlink($path);
}

# Bytes that identify their upload and stream.
sub content {
  my ($jid, $stream, $length) = @_;
  my $line = "$jid $stream\n";
  return substr($line x (1 + $length / length($line)), 0, $length);
}

sub append {
  my ($name, $jid, $received, $status) = @_;
  my $message = $status == 200 ? 'Success' : 'File already exists';
  my $command = $name;
  $command =~ s/^client1_//;
  my $time = strftime('%Y-%m-%d %H:%M:%S', localtime);
  open(my $file, '>>', $log) or die("$log: $!");
  binmode($file);
  flock($file, LOCK_EX);
  print $file "$time $jid client1 127.0.0.1 PUT client1 $command $received 0 0 $status -- $message\n";
  flock($file, LOCK_UN);
  close($file);
}
