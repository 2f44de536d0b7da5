"""The one error a user of the snapshotter meets: a reason for machines, a sentence for people."""

from __future__ import annotations


class SnapshotError(Exception):
    """Something the user can act on.

    `reason` is a CamelCase word (NotFound, Forbidden, DigestMismatch, ChecksumMismatch,
    SourceChanged, InvalidManifest, InvalidURL, Unavailable, NoSpace, Cancelled, Unsupported).
    `message` is a sentence that names the bucket and key and never holds a credential.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class TransientError(SnapshotError):
    """A failure that the same request may not meet again: 5xx, a cut, a flipped bit.

    `throttled` says that the store asked for fewer requests.
    """

    def __init__(
        self, message: str, reason: str = "Unavailable", *, throttled: bool = False
    ) -> None:
        super().__init__(reason, message)
        self.throttled = throttled
