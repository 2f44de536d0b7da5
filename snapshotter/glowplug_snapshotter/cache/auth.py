"""Signs requests between the daemons (and the operator's): an HMAC over method, target and time.

The key is a file that a Secret is mounted as; it never appears in arguments, addresses or logs.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

from glowplug_snapshotter.errors import SnapshotError

WINDOW = 60.0  # s that two clocks may differ; a replay in it reads the same immutable bytes
SHORTEST = 16  # bytes of a key
_STAMP = re.compile(r"(?P<signed>.+[?&]t=(?P<time>\d{1,12}))&signature=(?P<mac>[0-9a-f]{64})")


class Key:
    """The secret that all daemons of a cluster share."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def read(cls, path: Path) -> Key:
        """Read the key's file; SnapshotError when there is none or it is too short."""
        try:
            secret = path.read_bytes().strip()
        except OSError as error:
            raise SnapshotError(
                "Forbidden", f"The peers' key {path} cannot be read: {error.strerror}."
            ) from None
        if len(secret) < SHORTEST:
            raise SnapshotError(
                "Forbidden", f"The peers' key {path} is shorter than {SHORTEST} bytes."
            )
        return cls(secret)

    def sign(self, method: str, target: str, now: float) -> str:
        """Return the target (path and query) with the time and its signature appended."""
        stamped = f"{target}{'&' if '?' in target else '?'}t={int(now)}"
        return f"{stamped}&signature={self._mac(method, stamped)}"

    def admits(self, method: str, target: str, now: float) -> bool:
        """Whether who sent this target holds the key, and signed it within `WINDOW`."""
        found = _STAMP.fullmatch(target)
        if found is None or abs(now - int(found["time"])) > WINDOW:
            return False
        return hmac.compare_digest(self._mac(method, found["signed"]), found["mac"])

    def _mac(self, method: str, stamped: str) -> str:
        return hmac.new(self._secret, f"{method} {stamped}".encode(), hashlib.sha256).hexdigest()
