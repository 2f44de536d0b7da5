"""What keeps a replica from serving, read from its Pod and said in one sentence; pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from glowplug.api import meta
from glowplug.kube import ContainerRecord, PodRecord

_PULL = (
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RegistryUnavailable",
)
_CONFIG = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_LONGEST_QUOTE = 400


@dataclass(frozen=True, slots=True)
class Trouble:
    """`reason` is one CamelCase word, `sentence` names the Pod and quotes who complained."""

    reason: str
    sentence: str
    missing_secret: str | None = None


def trouble_of(pod: PodRecord) -> Trouble | None:
    """The trouble that this Pod is in, or None while it serves, starts or waits for a node."""
    for container in (*pod.init_containers, *pod.containers):
        found = _container_trouble(pod, container)
        if found is not None:
            return found
    if pod.phase == "Failed":
        return Trouble("PodFailed", f"Pod {pod.name} has failed and is replaced.")
    return None


def launcher_trouble(pod: PodRecord, error: str, stage: str | None) -> Trouble:
    """The launcher's own words; `stage` is the last one that its start reached."""
    reason = "RestoreFailed" if stage == "restore" else "EngineFailed"
    return Trouble(reason, f"Pod {pod.name}: {error.rstrip('.')}.")


def _container_trouble(pod: PodRecord, container: ContainerRecord) -> Trouble | None:
    waiting = container.waiting_reason
    told = _quote(container.waiting_message)
    if waiting in _PULL:
        return Trouble(
            "ImagePullFailed",
            f"Pod {pod.name} cannot get the image of container {container.name}: "
            f"{told or waiting}. Check engine.image and the node's access to its registry.",
        )
    if waiting in _CONFIG:
        return Trouble(
            "ContainerConfigError",
            f"Pod {pod.name} cannot start container {container.name}: {told or waiting}.",
            missing_secret=_missing_secret(container.waiting_message),
        )
    # One that runs again and is not ready yet is in the trouble that ended the last one.
    well = container.running and (container.ready or pod.ready)
    done = not container.running and waiting is None and container.exit_code == 0
    if waiting == "CrashLoopBackOff" or (container.restart_count and not (well or done)):
        return _ended(pod, container)
    return None


def _ended(pod: PodRecord, container: ContainerRecord) -> Trouble:
    if container.terminated_reason == "OOMKilled":
        return Trouble(
            "OutOfMemory",
            f"Container {container.name} of Pod {pod.name} ran out of memory and was killed; raise "
            "engine.resources.limits.memory.",
        )
    reason, told = _last_words(container.message)
    named = reason not in (None, "EngineFailed")
    restoring = container.name == meta.CONTAINER_RESTORE or named
    told = f"{reason}: {told}" if named else told  # as the launcher says it while it lives
    return Trouble(
        "RestoreFailed" if restoring else reason or "EngineExited",
        f"Container {container.name} of Pod {pod.name} ended with exit code {container.exit_code} "
        f"after {container.restart_count} restarts"
        + (f": {told}" if told else f"; see kubectl logs {pod.name} -p."),
    )


def _last_words(message: str | None) -> tuple[str | None, str]:
    """(reason, sentence) that snapshotter or launcher left, else the end of what was left."""
    if not message:
        return None, ""
    for line in reversed(message.strip().splitlines()):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if not isinstance(event, dict):
            continue
        if event.get("event") == "error":
            return str(event.get("reason", "Error")), _quote(str(event.get("message", "")))
        if (event.get("logger"), event.get("event")) == ("glowplug-launcher", "failed"):
            return "EngineFailed", _quote(str(event.get("error", "")))
    return None, _quote(message)


def error_event(message: str | None) -> tuple[str, str] | None:
    """(reason, sentence) of the snapshotter's error in a termination message, if there is one."""
    reason, told = _last_words(message)
    return None if reason is None else (reason, told)


def _missing_secret(message: str | None) -> str | None:
    found = re.search(r'secrets? "([^"]+)" not found', message or "")
    return found[1] if found else None


def _quote(message: str | None) -> str:
    """One line, the end of it where it is too long: that is where errors are."""
    text = " ".join((message or "").split())
    return text if len(text) <= _LONGEST_QUOTE else "..." + text[-_LONGEST_QUOTE:]
