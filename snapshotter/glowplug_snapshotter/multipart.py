"""Uploads large files in parts, and goes on where a killed run stopped.

S3 itself remembers what has arrived: an upload that was begun for the same key, and the MD5 of each
of its parts (their ETags). A part counts only when the bytes read now have that MD5, so nothing is
believed that this run did not read; where a store's ETags are no MD5s, parts are just sent again.
"""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError

from glowplug_snapshotter.backends import buckets
from glowplug_snapshotter.backends.http import refusal
from glowplug_snapshotter.bucket import S3Bucket
from glowplug_snapshotter.errors import SnapshotError, TransientError
from glowplug_snapshotter.manifest import CHUNK_SIZE

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import PartTypeDef

T = TypeVar("T")

PARTS_IN_FLIGHT = 3
MOST_PARTS = 9_000  # of one upload; S3 allows 10,000
COPY_LIMIT = 5 * 10**9  # bytes that one S3 CopyObject takes


class UploadGoneError(TransientError):
    """Somebody else finished or aborted the upload."""


@dataclass(frozen=True, slots=True)
class Begun:
    """An unfinished upload; `touched` is when its last part came (s since the epoch)."""

    path: str
    id: str
    touched: float


def part_size(size: int) -> int:
    """Return the bytes of each part but the last: whole chunks, the same in every run."""
    return CHUNK_SIZE * max(1, -(-size // (MOST_PARTS * CHUNK_SIZE)))


class Uploads:
    """The multipart uploads of a store."""

    def __init__(self, bucket: S3Bucket, endpoint: str | None, env: Mapping[str, str]) -> None:
        self.bucket = bucket
        self.client = buckets.boto3_client(endpoint, env, buckets.STORE_PREFIX)

    def open(self, path: str) -> Upload:
        """Go on with the newest upload to this key, or begin one."""
        try:
            begun = [upload for upload in self.begun(path) if upload.path == path]
        except SnapshotError as error:
            if error.reason != "Forbidden":
                raise
            begun = []  # these credentials may write but not list: nothing to go on with
        if begun:
            return Upload(self, max(begun, key=lambda upload: upload.touched))
        name = self.bucket.name
        answer = self.call(
            path, lambda key: self.client.create_multipart_upload(Bucket=name, Key=key)
        )
        return Upload(self, Begun(path, answer["UploadId"], 0.0), fresh=True)

    def begun(self, folder: str) -> list[Begun]:
        """Return all unfinished uploads whose paths begin with `folder`."""
        pages = self.client.get_paginator("list_multipart_uploads")
        name = self.bucket.name
        listing = self.call(folder, lambda key: list(pages.paginate(Bucket=name, Prefix=key)))
        found = []
        for item in (item for page in listing for item in page.get("Uploads", ())):
            path = item["Key"].removeprefix(self.bucket.prefix)
            begun = Begun(path, item["UploadId"], item["Initiated"].timestamp())
            try:
                parts = Upload(self, begun).parts()
            except UploadGoneError:
                continue
            times = [part["LastModified"].timestamp() for part in parts]
            found.append(Begun(path, begun.id, max([begun.touched, *times])))
        return found

    def abort(self, begun: Begun) -> None:
        """Forget an upload and its parts; one that is gone is no error."""
        Upload(self, begun).abort()

    def copy(self, source: str, etag: str, target: str) -> None:
        """Copy an object inside the store, in parts where one request cannot.

        Raises UploadGoneError when the object with this ETag is not there any more.
        """
        name, key = self.bucket.name, self.bucket.prefix + target
        once = TransferConfig(multipart_threshold=COPY_LIMIT, multipart_chunksize=COPY_LIMIT // 5)
        try:
            self.call(
                source,
                lambda origin: self.client.copy(
                    {"Bucket": name, "Key": origin},
                    name,
                    key,
                    ExtraArgs={"CopySourceIfMatch": etag},
                    Config=once,
                ),
            )
        except SnapshotError as error:
            if error.reason in ("NotFound", "SourceChanged"):
                where = self.bucket.describe(source)
                raise UploadGoneError(f"{where} was taken away.") from None
            raise

    def call(self, path: str, request: Callable[[str], T]) -> T:
        """Run a request on the path's key; raises SnapshotError for what boto3 raises."""
        where = self.bucket.describe(path)
        try:
            return request(self.bucket.prefix + path)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code in ("NoSuchUpload", "InvalidPart"):
                raise UploadGoneError(f"The upload to {where} is gone.") from None
            raise refusal(status, where, code) from None
        except BotoCoreError as error:
            if "Credential" in type(error).__name__:
                raise SnapshotError(
                    "Forbidden", f"No credentials for {where}: name a Secret that holds them."
                ) from None
            kind = type(error).__name__
            raise TransientError(f"{where} could not be reached ({kind}).") from None


class Upload:
    """One file on its way."""

    def __init__(self, owner: Uploads, begun: Begun, *, fresh: bool = False) -> None:
        self.path = begun.path
        self._fresh = fresh
        self.sent = 0  # bytes that this run has uploaded
        self._id = begun.id
        self._owner = owner
        self._name = owner.bucket.name
        self._digests: list[bytes] = []
        self._etags: list[str] = []

    def parts(self) -> list[PartTypeDef]:
        """Return what has arrived."""
        pages = self._owner.client.get_paginator("list_parts")
        listing = self._owner.call(
            self.path,
            lambda key: list(pages.paginate(Bucket=self._name, Key=key, UploadId=self._id)),
        )
        return [part for page in listing for part in page.get("Parts", ())]

    def send(self, parts: Iterable[bytes | bytearray]) -> None:
        """Upload the file's parts in order, a few at a time, but those that have arrived."""
        parts_here = [] if self._fresh else self.parts()
        here = {part["PartNumber"]: part["ETag"].strip('"') for part in parts_here}
        waiting: deque[Future[str]] = deque()
        with ThreadPoolExecutor(PARTS_IN_FLIGHT) as pool:
            for number, data in enumerate(parts, 1):
                digest = hashlib.md5(data, usedforsecurity=False).digest()
                self._digests.append(digest)
                if len(waiting) == PARTS_IN_FLIGHT:
                    self._etags.append(waiting.popleft().result())
                known = here.get(number) == digest.hex()
                waiting.append(pool.submit(self._part, number, data, digest, known=known))
            self._etags.extend(future.result() for future in waiting)

    def finish(self) -> str:
        """Make the object appear; return its ETag. Raises UploadGoneError."""
        numbered = enumerate(self._etags, 1)
        parts = {"Parts": [{"ETag": etag, "PartNumber": n} for n, etag in numbered]}
        try:
            answer = self._owner.call(
                self.path,
                lambda key: self._owner.client.complete_multipart_upload(
                    Bucket=self._name,
                    Key=key,
                    UploadId=self._id,
                    MultipartUpload=parts,  # type: ignore[arg-type]
                ),
            )
        except UploadGoneError:
            whole = hashlib.md5(b"".join(self._digests), usedforsecurity=False).hexdigest()
            there = self._owner.bucket.head(self.path)  # perhaps only its answer was lost
            if there is None or there.etag != f'"{whole}-{len(self._digests)}"':
                raise
            return there.etag
        return answer["ETag"]

    def abort(self) -> None:
        """Forget the upload and its parts; one that is gone is no error."""
        try:
            self._owner.call(
                self.path,
                lambda key: self._owner.client.abort_multipart_upload(
                    Bucket=self._name, Key=key, UploadId=self._id
                ),
            )
        except SnapshotError as error:
            if error.reason != "NotFound" and not isinstance(error, UploadGoneError):
                raise

    def _part(self, number: int, data: bytes | bytearray, digest: bytes, *, known: bool) -> str:
        if known:
            return f'"{digest.hex()}"'
        answer = self._owner.call(
            self.path,
            lambda key: self._owner.client.upload_part(
                Bucket=self._name,
                Key=key,
                UploadId=self._id,
                PartNumber=number,
                Body=data,  # type: ignore[arg-type]  # a bytearray is taken as it is
                ContentMD5=base64.b64encode(digest).decode(),
            ),
        )
        self.sent += len(data)
        return answer["ETag"]
