"""Keys, certificates and kubeconfigs of the cluster, made new with every `up` from nothing."""

import base64
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster.processes import write_config

LIFETIME = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority whose files lie in one directory."""

    directory: Path
    name: str

    @property
    def certificate(self) -> Path:
        """The authority's own certificate."""
        return self.directory / f"{self.name}.crt"

    def create(self) -> None:
        """Make the authority unless its files are there."""
        if self.certificate.exists():
            return
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(f"glowplug-{self.name}", ())
        builder = _builder(subject, subject, key.public_key())
        usage = x509.KeyUsage(
            True, False, False, False, False, True, True, encipher_only=False, decipher_only=False
        )
        signed = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        _write_key(self.directory / f"{self.name}.key", key)
        self.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, file: str, name: str, groups: Sequence[str] = (), addresses: Sequence[str] = ()
    ) -> tuple[Path, Path]:
        """Issue a certificate for a client or server; returns (certificate, key) paths."""
        certificate, key_file = self.directory / f"{file}.crt", self.directory / f"{file}.key"
        if certificate.exists():
            return certificate, key_file
        issuer_key = serialization.load_pem_private_key(
            (self.directory / f"{self.name}.key").read_bytes(), None
        )
        issuer = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = _builder(_subject(name, groups), issuer.subject, key.public_key())
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        if addresses:
            names = x509.SubjectAlternativeName([_general(address) for address in addresses])
            builder = builder.add_extension(names, critical=False)
        signed = builder.sign(issuer_key, hashes.SHA256())
        _write_key(key_file, key)
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        return certificate, key_file


def service_account_key(directory: Path) -> tuple[Path, Path]:
    """The key pair that signs service account tokens; returns (private, public) paths."""
    private, public = directory / "service-account.key", directory / "service-account.pub"
    if not public.exists():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        _write_key(private, key)
        public.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
    return private, public


def kubeconfig(
    path: Path, server: str, authority: Authority, name: str, groups: Sequence[str] = ()
) -> Path:
    """Write a self-contained kubeconfig for a user whose certificate is issued here."""
    certificate, key = authority.issue(f"client-{path.stem}", name, groups)
    user = {
        "client-certificate-data": _base64(certificate),
        "client-key-data": _base64(key),
    }
    context = {"cluster": "glowplug", "user": name}
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "glowplug",
                "cluster": {
                    "server": server,
                    "certificate-authority-data": _base64(authority.certificate),
                },
            }
        ],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "glowplug", "context": context}],
        "current-context": "glowplug",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    write_config(path, json.dumps(body, indent=1))  # JSON is YAML
    return path


def _subject(name: str, groups: Sequence[str]) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
    )


def _general(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
