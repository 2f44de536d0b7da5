"""The few fields of a multipart form that the gateway needs; files in it are left as they are."""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart/form-data body (RFC 7578), cut at its boundaries and nowhere else."""

    boundary: bytes
    pieces: tuple[bytes, ...]  # between delimiters, with the preamble and the epilogue

    @classmethod
    def parse(cls, content_type: bytes, body: bytes) -> Form:
        """Cut a body. Raises ValueError when it is not a form."""
        boundary = _parameter("content-type", content_type.decode("latin-1"), "boundary")
        if not boundary:
            raise ValueError("its Content-Type names no boundary")
        delimiter = b"\r\n--" + boundary.encode("latin-1")
        pieces = (b"\r\n" + body).split(delimiter)
        if len(pieces) < 3 or not pieces[-1].startswith(b"--"):
            raise ValueError("its last boundary is missing")
        return cls(delimiter, tuple(pieces))

    def value(self, name: str) -> bytes | None:
        """The content of the field of that name. Raises ValueError when it occurs twice."""
        found = [self.pieces[i].partition(b"\r\n\r\n")[2] for i in self._named(name)]
        if len(found) > 1:
            raise ValueError(f"the field '{name}' occurs {len(found)} times")
        return found[0] if found else None

    def replaced(self, name: str, value: bytes) -> bytes:
        """The body with another content of that field."""
        pieces = list(self.pieces)
        for i in self._named(name):
            head, gap, _ = pieces[i].partition(b"\r\n\r\n")
            pieces[i] = head + gap + value
        return self.boundary.join(pieces).removeprefix(b"\r\n")

    def _named(self, name: str) -> list[int]:
        return [i for i, piece in enumerate(self.pieces[1:-1], 1) if _field_name(piece) == name]


def _field_name(piece: bytes) -> str | None:
    head = piece.partition(b"\r\n\r\n")[0].decode("utf-8", "replace")
    for line in head.split("\r\n"):
        key, _, value = line.partition(":")
        if key.strip().lower() == "content-disposition":
            return _parameter("content-disposition", value.strip(), "name")
    return None


def _parameter(header: str, value: str, name: str) -> str | None:
    message = Message()
    message[header] = value
    found = message.get_param(name, header=header)
    return found if isinstance(found, str) else None
