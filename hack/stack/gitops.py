"""Glowplug by GitOps as a platform team has it: their repository, and their Argo CD."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from cluster.commands import run
from cluster.config import paths
from cluster.gitops import NAMESPACE
from stack.stack import Json, Stack

CASCADE = ["resources-finalizer.argocd.argoproj.io"]  # what `argocd app delete` sets


@dataclass(frozen=True, slots=True)
class Git:
    """A repository of a platform team: our charts at a tag, their models on a branch."""

    folder: Path

    @property
    def url(self) -> str:
        """Where Argo CD fetches it."""
        return f"file://{self.folder}"

    def run(self, *words: str) -> str:
        """Run git there and return what it printed."""
        identity = ("-c", "user.name=Platform", "-c", "user.email=platform@example.com")
        return run(["git", *identity, *words], cwd=self.folder).strip()

    def commit(self, message: str, files: Mapping[str, Json]) -> str:
        """Write files of one object each, and return the commit of all that has changed."""
        for name, body in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump(body))
        self.run("add", "--all")
        self.run("commit", "--quiet", "-m", message)
        return self.run("rev-parse", "HEAD")


@dataclass(frozen=True, slots=True)
class Argo:
    """Argo CD as its user sees it by kubectl."""

    stack: Stack
    git: Git

    def get(self, name: str) -> Json:
        """The Application."""
        found: Json = self.stack.cluster.get("-n", NAMESPACE, "applications.argoproj.io", name)
        return found

    def kubectl(self, *words: str) -> str:
        """Run kubectl in Argo CD's namespace and return what it printed."""
        return self.stack.cluster.kubectl("-n", NAMESPACE, *words)

    async def compare(self, name: str) -> Json:
        """Compare git and cluster afresh, no cache asked, and return the Application."""
        asked = "argocd.argoproj.io/refresh"
        self.kubectl("annotate", "application", name, f"{asked}=hard", "--overwrite")
        await self.stack.until(
            lambda: asked not in self.get(name)["metadata"].get("annotations", {}), 90
        )
        return self.get(name)

    async def until(
        self, name: str, health: str, *, revision: str = "", seconds: int = 180
    ) -> Json:
        """Wait until it is in sync (with a commit) and in that health."""

        def settled() -> bool:
            status = self.get(name).get("status", {})
            compared = status.get("sync", {})
            reached = (compared.get("status"), status.get("health", {}).get("status"))
            return revision in ("", compared.get("revision")) and reached == ("Synced", health)

        try:
            await self.stack.until(settled, seconds, pause=1)
            return self.get(name)
        except AssertionError as error:
            told = json.dumps(self.get(name).get("status", {}), indent=1)
            raise AssertionError(f"{name}: {error}\n{told}") from error

    @contextmanager
    def watched(self, name: str) -> Iterator[list[str]]:
        """Every `sync health` that the Application passes through in the block."""
        shown = "jsonpath={.status.sync.status} {.status.health.status}{'\\n'}"
        where = paths()
        kubectl = [str(where.bin / "kubectl"), "--kubeconfig", str(where.kubeconfig)]
        words = [*kubectl, "-n", NAMESPACE, "get", "application", name, "--watch", "-o", shown]
        seen: list[str] = []
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
            try:
                yield seen
            finally:
                child.terminate()
                seen += [line.strip() for line in child.stdout or ()]

    def health(self, model: str) -> tuple[str, str]:
        """The health of a model that the Application `models` shows, and its message."""
        for one in self.get("models")["status"]["resources"]:
            if (one["kind"], one["name"]) == ("ModelDeployment", model):
                return one["health"]["status"], one["health"].get("message", "")
        raise AssertionError(f"the Application does not list {model}")

    def told(self, model: str, reason: str | None = None) -> str:
        """The message of the model's Ready condition, which has that reason."""
        ready = self.stack.condition(model, "Ready", reason=reason)
        assert ready is not None, self.stack.status(model)
        return str(ready["message"])

    def delete(self, name: str) -> None:
        """`argocd app delete`: what it had synced goes first, then the Application."""
        if self.kubectl("get", "application", name, "-o", "name", "--ignore-not-found"):
            patch = json.dumps({"metadata": {"finalizers": CASCADE}})
            self.kubectl("patch", "application", name, "--type=merge", "-p", patch)
            self.kubectl("delete", "application", name, "--timeout=110s")


def complaint(application: Json) -> str:
    """What the Application says that is wrong with it."""
    conditions = application["status"].get("conditions", [])
    return " ".join(one["message"] for one in conditions)


def syncs(application: Json) -> tuple[int, str]:
    """How many syncs there were, and when the last one ended."""
    status = application["status"]
    return len(status["history"]), status["operationState"]["finishedAt"]
