"""The certificate that the gateway shows, read again when its files change."""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 5.0


class CertificateError(Exception):
    """The files do not hold a certificate and its key; the text says which and what to do."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files: the chain, and its private key without a passphrase."""

    cert: Path
    key: Path

    def state(self) -> tuple[tuple[int, int, int], ...]:
        """Changes with the files, also where a link to them moves, as in a mounted Secret."""
        stats = (path.stat() for path in (self.cert, self.key))
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in stats)

    def load(self) -> ssl.SSLContext:
        """A server's context with this certificate; `CertificateError` when there is none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.cert, self.key, password=_no_passphrase)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise CertificateError(
                f"{self.cert} and {self.key} are no certificate and its key in PEM: {error}. "
                "Give --tls-cert and --tls-key the files of a kubernetes.io/tls Secret."
            ) from error
        return context


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase")


class Certificate:
    """A context for listeners, always with the newest certificate that could be read.

    look_every: seconds between looks at the files.
    """

    def __init__(self, files: CertificateFiles, look_every: float = _LOOK_EVERY_S) -> None:
        self._files = files
        self._look_every = look_every
        self.context = files.load()
        self._newest = self.context
        self._state = files.state()
        # Called in each handshake, with or without a server name: established connections stay.
        self.context.sni_callback = self._choose

    def _choose(
        self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext
    ) -> None:
        connection.context = self._newest

    async def follow(self) -> None:
        """Read changed files until cancelled; what cannot be read leaves the last one in use."""
        while True:
            await asyncio.sleep(self._look_every)
            try:
                self._refresh()
            except (CertificateError, OSError) as error:
                logger.error("the old certificate stays in use: %s", error)

    def _refresh(self) -> None:
        state = self._files.state()
        if state == self._state:
            return
        # Before the load, so that one broken pair is complained of once.
        self._state = state
        self._newest = self._files.load()
        logger.info("certificate renewed", extra={"file": str(self._files.cert)})
