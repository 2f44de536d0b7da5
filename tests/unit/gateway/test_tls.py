"""TLS for clients: what they are shown, before and after the certificate was renewed."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import ssl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from glowplug.gateway.gateway import Settings
from glowplug.gateway.tls import Certificate, CertificateError, CertificateFiles

from .bench import HOST, TOKENS, Bench, until
from .raw import PLAIN, read_all, read_answer

GATEWAY = Path(sys.executable).with_name("glowplug-gateway")


def pair(name: str) -> tuple[bytes, bytes]:
    """A self-signed certificate of the bench's address, and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.DNSName("gateway.test")
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return made.public_bytes(pem), key.private_bytes(pem, pkcs8, plain)


class Mounted:
    """A Secret as the kubelet mounts it: links through ..data, which moves in one step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._version = 0
        self.files = CertificateFiles(folder / "tls.crt", folder / "tls.key")

    def put(self, cert: bytes, key: bytes) -> bytes:
        self._version += 1
        version = self.folder / f"..{self._version}"
        version.mkdir()
        (version / "tls.crt").write_bytes(cert)
        (version / "tls.key").write_bytes(key)
        moved = self.folder / "..data_tmp"
        moved.symlink_to(version.name)
        moved.replace(self.folder / "..data")
        for name in ("tls.crt", "tls.key"):
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        return cert


@pytest.fixture
def secret(tmp_path: Path) -> Mounted:
    mounted = Mounted(tmp_path)
    mounted.put(*pair("first"))
    return mounted


@pytest.fixture
def settings(settings: Settings, secret: Mounted) -> Settings:
    return replace(settings, certificate=Certificate(secret.files, look_every=0.01))


def trusting(cert: bytes) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=cert.decode())


async def connect(bench: Bench, cert: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection whose certificate was verified to be this one."""
    reader, writer = await asyncio.open_connection(
        HOST, bench.gateway.http_port, ssl=trusting(cert), server_hostname="gateway.test"
    )
    bench.stack.callback(writer.close)
    return reader, writer


async def shown(bench: Bench) -> str:
    """The name in the certificate that a new connection gets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(HOST, bench.gateway.http_port, ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    [name] = x509.load_der_x509_certificate(der).subject
    return str(name.value)


async def until_shown(bench: Bench, name: str) -> None:
    async with asyncio.timeout(60):
        while await shown(bench) != name:  # noqa: ASYNC110 - asks the gateway each time
            await asyncio.sleep(0.01)


async def test_requests_and_streams_pass_over_tls(bench: Bench, secret: Mounted) -> None:
    bench.model()
    await bench.serving()
    context = trusting(secret.files.cert.read_bytes())
    url = f"https://{HOST}:{bench.gateway.http_port}/v1/chat/completions"
    for stream in (False, True):
        body = {"model": "smollm2", "messages": [], "stream": stream}
        async with bench.session.post(
            url, json=body, ssl=context, server_hostname="gateway.test"
        ) as response:
            text = await response.text()
        assert response.status == 200
        assert all(token in text for token in TOKENS)
        assert text.endswith("data: [DONE]\n\n") is stream


async def test_a_renewed_certificate_is_shown_and_open_connections_stay(
    bench: Bench, secret: Mounted
) -> None:
    bench.model()
    await bench.serving()
    reader, writer = await connect(bench, secret.files.cert.read_bytes())
    renewed = secret.put(*pair("second"))
    await until_shown(bench, "second")
    writer.write(PLAIN)
    status, _ = await read_answer(reader)
    assert status == 200
    await connect(bench, renewed)


async def test_a_broken_renewal_leaves_the_old_certificate_and_says_so_once(
    bench: Bench, secret: Mounted, caplog: pytest.LogCaptureFixture
) -> None:
    cert, _ = pair("second")
    _, other_key = pair("third")
    with caplog.at_level(logging.ERROR, "glowplug.gateway.tls"):
        secret.put(cert, other_key)
        await until(lambda: bool(caplog.records))
        await asyncio.sleep(0.1)
    assert await shown(bench) == "first"
    [record] = caplog.records
    assert "the old certificate stays in use" in record.getMessage()
    secret.put(*pair("fourth"))
    await until_shown(bench, "fourth")


async def test_bytes_that_are_no_http_are_answered(bench: Bench, secret: Mounted) -> None:
    reader, writer = await connect(bench, secret.files.cert.read_bytes())
    writer.write(b"nonsense\r\n\r\n")
    status, body = await read_answer(reader)
    assert status == 400
    assert json.loads(body)["error"]


async def test_plain_http_is_turned_away(bench: Bench) -> None:
    reader, writer = await bench.connect()
    writer.write(PLAIN)
    assert b"HTTP/1.1 200" not in await read_all(reader)
    assert await shown(bench) == "first"


@pytest.mark.parametrize("cert", [b"", b"no PEM", None])
def test_a_pair_that_cannot_be_read_is_named(tmp_path: Path, cert: bytes | None) -> None:
    files = CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key")
    files.key.write_bytes(pair("x")[1])
    if cert is not None:
        files.cert.write_bytes(cert)
    with pytest.raises(CertificateError, match=r"tls\.crt.*Give --tls-cert"):
        files.load()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tls-cert", "a"], "belong together"),
        (["--tls-cert", "/nowhere/a", "--tls-key", "/nowhere/b"], "/nowhere/a"),
    ],
)
def test_the_command_refuses_half_a_pair_and_missing_files(arguments: list[str], says: str) -> None:
    done = subprocess.run(
        [GATEWAY, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
