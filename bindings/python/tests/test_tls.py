"""What TLS has agreed on, certificates of clients, and which versions of HTTP there are."""

from __future__ import annotations

import asyncio
import datetime
import json
import socket
import ssl

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from wt_client import dial


def issue(folder, name, issuer=None):
    """A certificate and its key as files; by itself without an issuer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "A, B"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=10))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    certificate = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(encoding))
    (folder / f"{name}.key").write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    return certificate, key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    authority = issue(folder, "authority")
    issue(folder, "alice", authority)
    issue(folder, "mallory")
    return folder


def context(folder=None, name=None):
    made = ssl.create_default_context()
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if name:
        made.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return made


def tls_of(server, verify, version="HTTP/1.1"):
    with httpx.Client(verify=verify, timeout=60, http1=version == "HTTP/1.1", http2=version == "HTTP/2") as client:
        response = client.get(f"{server.url}/scope")
        assert response.http_version == version
        return response.json()["extensions"]["tls"]


async def over_http3(server, path="/scope", configure=lambda configuration: None):
    async with dial(server, configure=configure) as client:
        head, body = await client.fetch(path)
        assert head[b":status"] == b"200"
        return json.loads(body)


def test_what_is_told_of_anonymous_clients(serve):
    server = serve("plain:app")
    nobody = {"server_cert": None, "client_cert_chain": [], "client_cert_name": None, "client_cert_error": None}
    for version in ["HTTP/1.1", "HTTP/2"]:
        told = tls_of(server, context(), version)
        assert told == {**nobody, "tls_version": 0x0304, "cipher_suite": told["cipher_suite"]}
        assert told["cipher_suite"] in (0x1301, 0x1302, 0x1303)
    older = context()
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    assert tls_of(server, older)["tls_version"] == 0x0303
    told = asyncio.run(asyncio.wait_for(over_http3(server), 120))["extensions"]["tls"]
    assert told == {**nobody, "tls_version": 0x0304, "cipher_suite": None}
    plain = serve("plain:app", tls=False)
    assert "tls" not in httpx.get(f"{plain.url}/scope").json()["extensions"]


def test_clients_that_need_a_certificate(serve, certificates):
    server = serve("plain:app", "--client-ca", str(certificates / "authority.pem"))
    pem = (certificates / "alice.pem").read_text()
    for version in ["HTTP/1.1", "HTTP/2"]:
        told = tls_of(server, context(certificates, "alice"), version)
        assert (told["client_cert_name"], told["client_cert_chain"]) == ("CN=alice,O=A\\, B", [pem])
        for refused in [context(), context(certificates, "mallory")]:
            with pytest.raises(httpx.TransportError):
                tls_of(server, refused, version)

    async def main():
        def alice(configuration):
            configuration.load_cert_chain(str(certificates / "alice.pem"), str(certificates / "alice.key"))

        told = (await over_http3(server, configure=alice))["extensions"]["tls"]
        assert (told["client_cert_name"], told["client_cert_chain"]) == ("CN=alice,O=A\\, B", [pem])
        with pytest.raises(ConnectionError):
            await over_http3(server)

    asyncio.run(asyncio.wait_for(main(), 120))


def test_clients_that_may_have_a_certificate(serve, certificates):
    server = serve("plain:app", "--ssl-ca-certs", str(certificates / "authority.pem"), "--ssl-cert-reqs", "1")
    assert tls_of(server, context(certificates, "alice"))["client_cert_name"] == "CN=alice,O=A\\, B"
    assert tls_of(server, context())["client_cert_name"] is None
    with pytest.raises(httpx.TransportError):
        tls_of(server, context(certificates, "mallory"))
    assert asyncio.run(asyncio.wait_for(over_http3(server), 120))["extensions"]["tls"]["client_cert_chain"] == []


def test_roots_that_cannot_be_used(serve, tmp_path):
    (tmp_path / "empty.pem").write_text("nothing\n")
    for path in ["empty.pem", "missing.pem"]:
        server = serve("plain:app", "--client-ca", str(tmp_path / path), wait=0)
        assert server.ended() != 0
        assert path in server.output


def reached(server):
    """Which versions answer."""
    versions = set()
    for version in ["HTTP/1.1", "HTTP/2"]:
        try:
            tls_of(server, context(), version)
            versions.add(version[5:])
        except httpx.TransportError:
            pass

    async def third():
        async with asyncio.timeout(10):
            return await over_http3(server)

    try:
        asyncio.run(third())
        versions.add("3")
    except (ConnectionError, TimeoutError):
        pass
    return versions


@pytest.mark.parametrize(
    ("flags", "versions"),
    [
        (["--no-http1"], {"2", "3"}),
        (["--no-http2"], {"1.1", "3"}),
        (["--no-http1", "--no-http2"], {"3"}),
    ],
)
def test_versions_are_switched_off(serve, flags, versions):
    assert reached(serve("plain:app", *flags)) == versions


def test_without_http3_nobody_listens_on_udp(serve):
    server = serve("plain:app", "--no-http3")
    with httpx.Client(verify=False, timeout=60) as client:
        assert "alt-svc" not in client.get(f"{server.url}/scope").headers
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", server.port))


@pytest.mark.parametrize("flags", [["--no-http1"], ["--self-signed", "--no-http1", "--no-http2", "--no-http3"]])
def test_some_version_has_to_be_on(serve, flags):
    server = serve("plain:app", *flags, tls=False, wait=0)
    assert server.ended() == 2 and "HTTP" in server.output
