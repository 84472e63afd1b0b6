// Java's HttpClient as a client: sends a GET and then a PUT, and prints both
// statuses. Parameters come from the environment.
import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class InteropClient {
  static String env(String name) {
    return System.getenv(name);
  }

  static KeyStore emptyStore() throws Exception {
    KeyStore store = KeyStore.getInstance("PKCS12");
    store.load(null, null);
    return store;
  }

  static Certificate readCertificate(String path) throws Exception {
    byte[] pem = Files.readAllBytes(Path.of(path));
    return CertificateFactory.getInstance("X.509").generateCertificate(new ByteArrayInputStream(pem));
  }

  static KeyManager[] readIdentity() throws Exception {
    String pem = Files.readString(Path.of(env("KEY"))).replaceAll("-----.*-----|\\s", "");
    var key = KeyFactory.getInstance("RSA").generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(pem)));
    KeyStore store = emptyStore();
    store.setKeyEntry("client", key, new char[0], new Certificate[] {readCertificate(env("CERTIFICATE"))});
    KeyManagerFactory factory = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
    factory.init(store, new char[0]);
    return factory.getKeyManagers();
  }

  static SSLContext makeContext() throws Exception {
    KeyStore trusted = emptyStore();
    trusted.setCertificateEntry("server", readCertificate(env("CA")));
    TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    factory.init(trusted);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(env("CERTIFICATE").isEmpty() ? null : readIdentity(), factory.getTrustManagers(), null);
    return context;
  }

  static HttpRequest.Builder requestFor(String url) {
    HttpRequest.Builder builder = HttpRequest.newBuilder(URI.create(url));
    String credentials = Base64.getEncoder().encodeToString(env("CREDENTIALS").getBytes());
    return credentials.isEmpty() ? builder : builder.header("Authorization", "Basic " + credentials);
  }

  public static void main(String[] args) throws Exception {
    HttpClient.Builder builder = HttpClient.newBuilder();
    if (!env("CA").isEmpty()) builder.sslContext(makeContext());
    HttpClient client = builder.build();
    var got = client.send(requestFor(env("GET")).build(), BodyHandlers.ofByteArray());
    System.out.println(got.statusCode());
    Files.write(Path.of(env("RECEIVED")), got.body());
    var body = HttpRequest.BodyPublishers.ofFile(Path.of(env("BODY")));
    var put = client.send(requestFor(env("PUT")).PUT(body).build(), BodyHandlers.ofByteArray());
    System.out.println(put.statusCode());
  }
}
