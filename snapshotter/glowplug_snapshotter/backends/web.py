"""Models on web servers: plain folders of files, and repositories in the Hugging Face layout."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from typing import Any
from urllib.parse import quote

from glowplug_snapshotter.backends import Entry
from glowplug_snapshotter.backends.http import HttpReader
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.manifest import safe_path

INDEX = "model.safetensors.index.json"
SMALL_LIMIT = 64 * 1024 * 1024  # bytes of an index or a repository's listing
COMPANIONS = (  # what may lie beside the weights of a model served as plain files
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
)
HUB_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.py")
HUB_DEFAULT = "https://huggingface.co"
LISTING = "/listing"  # no file's path starts with a slash


class WebReader(HttpReader):
    """A directory on a web server, which cannot be listed: its files are found by their names.

    Weights come from model.safetensors.index.json, or are model.safetensors; the rest is what of
    COMPANIONS exists.
    """

    def entries(self) -> list[Entry]:
        """Return the model's files, each pinned by its ETag or date."""
        config = self.probe("config.json")
        if config is None:
            raise SnapshotError(
                "NotFound", f"{self.describe('config.json')} does not exist: not a model's folder."
            )
        index = self.probe(INDEX)
        weights = ["model.safetensors"] if index is None else self._shards()
        found = [config, index, *(self.probe(name) for name in COMPANIONS)]
        for name in weights:
            weight = self.probe(name)
            if weight is None:
                raise SnapshotError("NotFound", f"{self.describe(name)} does not exist.")
            found.append(weight)
        return sorted((entry for entry in found if entry is not None), key=lambda e: e.path)

    def probe(self, path: str) -> Entry | None:
        """Return the file pinned, or None when there is none."""
        try:
            response = self._get(path, {"Range": "bytes=0-0"})
        except SnapshotError as error:
            if error.reason == "NotFound":
                return None
            raise
        response.close()  # a server without ranges would send the whole file
        total = response.headers.get("content-range", "").rpartition("/")[2]
        validator = response.headers.get("etag") or ""
        if not total.isdigit():
            raise SnapshotError(
                "Unsupported", f"{self.describe(path)}: the server answers no byte ranges."
            )
        if not validator or validator.startswith("W/"):
            raise SnapshotError(
                "Unsupported",
                f"{self.describe(path)}: the server sends no strong ETag, "
                "so a file replaced while it is read would go unnoticed.",
            )
        return Entry(path, int(total), validator)

    def _shards(self) -> list[str]:
        try:
            index = json.loads(self.fetch(INDEX, SMALL_LIMIT))
            return sorted({safe_path(name) for name in index["weight_map"].values()})
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise SnapshotError(
                "Unsupported", f"{self.describe(INDEX)} is not an index of weights: {error}."
            ) from None


class HubReader(HttpReader):
    """A repository in the Hugging Face layout, pinned to the commit that its revision names.

    `endpoint` may be a mirror; `token` opens gated models.
    """

    def __init__(self, repository: str, endpoint: str | None, token: str | None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else None
        super().__init__(endpoint or HUB_DEFAULT, headers)
        name, _, revision = repository.partition("@")
        self._name = name
        self._wanted = revision or "main"
        self._commit: str | None = None

    def describe(self, path: str) -> str:
        """Return the file's address in its repository."""
        root = f"hf://{self._name}@{self._commit or self._wanted}"
        return root if path == LISTING else f"{root}/{path}"

    def revision(self) -> str | None:
        """Return the commit, known once the repository was listed."""
        return self._commit

    def url_for(self, path: str) -> str:
        """Return the address of a file at the pinned commit, or of the listing."""
        if path == LISTING:
            wanted = quote(self._commit or self._wanted, safe="")
            return f"{self._base}/api/models/{self._name}/revision/{wanted}?blobs=true"
        return f"{self._base}/{self._name}/resolve/{self._commit}/{quote(path)}"

    def entries(self) -> list[Entry]:
        """Return the files that serving needs; a commit never changes, so it is their pin."""
        listing = self.fetch(LISTING, SMALL_LIMIT)
        try:
            info = json.loads(listing)
            self._commit = str(info["sha"])
            files = [self._entry(item) for item in info["siblings"]]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise SnapshotError(
                "Unsupported", f"{self.describe(LISTING)} has a listing that is not one: {error!r}."
            ) from None
        wanted = [e for e in files if any(fnmatch(e.path, pattern) for pattern in HUB_PATTERNS)]
        return sorted(wanted, key=lambda entry: entry.path)

    def _entry(self, item: dict[str, Any]) -> Entry:
        large = item.get("lfs") or {}
        return Entry(safe_path(item["rfilename"]), int(item["size"]), None, large.get("sha256"))
