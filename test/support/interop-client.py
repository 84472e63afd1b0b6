# Python's urllib as a client: sends a GET and then a PUT, and prints both
# statuses. Parameters come from the environment.
import os
import socket
import ssl
import urllib.error
import urllib.request
from base64 import b64encode

env = os.environ
find = socket.getaddrinfo
# The name in the URL is the one in the certificate; the server listens on this machine.
socket.getaddrinfo = lambda host, *rest, **more: find("127.0.0.1", *rest, **more)

handlers = [urllib.request.ProxyHandler({})]
if env["CA"]:
    context = ssl.create_default_context(cafile=env["CA"])
    # Newer versions require the CA flag, which a self-signed certificate lacks.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    if env["CERTIFICATE"]:
        context.load_cert_chain(env["CERTIFICATE"], env["KEY"])
    handlers.append(urllib.request.HTTPSHandler(context=context))
opener = urllib.request.build_opener(*handlers)


def ask(url, body):
    request = urllib.request.Request(url, data=body, method="GET" if body is None else "PUT")
    if env["CREDENTIALS"]:
        request.add_header("Authorization", "Basic " + b64encode(env["CREDENTIALS"].encode()).decode())
    if body is not None:
        request.add_header("Content-Type", "application/octet-stream")
    try:
        with opener.open(request, timeout=60) as answer:
            content = answer.read()
            print(answer.status, answer.reason)
            return content
    except urllib.error.HTTPError as error:
        print(error.code, error.reason)
        return b""


with open(env["RECEIVED"], "wb") as file:
    file.write(ask(env["GET"], None))
with open(env["BODY"], "rb") as file:
    ask(env["PUT"], file.read())
