# Perl's HTTP::Tiny as a client: sends a GET and then a PUT, and prints both
# statuses. Parameters come from the environment.
use strict;
use warnings;
use HTTP::Tiny;
use MIME::Base64;

my %tls = $ENV{CERTIFICATE} ? (SSL_cert_file => $ENV{CERTIFICATE}, SSL_key_file => $ENV{KEY}) : ();
my $http = HTTP::Tiny->new(
    timeout => 60,
    ($ENV{CA} ? (verify_SSL => 1, SSL_options => {SSL_ca_file => $ENV{CA}, %tls}) : ()),
);

sub ask {
    my ($method, $url, $body) = @_;
    my %headers = $ENV{CREDENTIALS} ? (Authorization => 'Basic ' . encode_base64($ENV{CREDENTIALS}, '')) : ();
    # The name in the URL is the one in the certificate; the server listens on this machine.
    my %options = (headers => \%headers, peer => '127.0.0.1');
    $options{content} = $body if defined $body;
    my $answer = $http->request($method, $url, \%options);
    my $reason = $answer->{status} == 599 ? $answer->{content} : $answer->{reason};
    $reason =~ s/\s+/ /g;
    print "$answer->{status} $reason\n";
    return $answer->{content};
}

my $program = ask('GET', $ENV{GET});
open my $received, '>:raw', $ENV{RECEIVED} or die $!;
print $received $program;
close $received or die $!;
open my $file, '<:raw', $ENV{BODY} or die $!;
my $body = do { local $/; <$file> };
ask('PUT', $ENV{PUT}, $body);
