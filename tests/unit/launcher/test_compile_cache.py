"""An engine finds its compile cache in place when it starts, or an empty directory."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.snapshotter.compile_caches import KEY, captured, shelf, write_cache

from glowplug_snapshotter.launcher.config import ConfigError, from_environment

from .conftest import ENGINE, Launcher

__all__ = ["shelf"]


@pytest.mark.parametrize(("driver", "used"), [(KEY["driver"], True), ("another", False)])
def test_the_cache_is_there_before_the_engine_starts(
    launch: Callable[..., Launcher],
    shelf: tuple[Path, str],
    tmp_path: Path,
    driver: str,
    used: bool,
) -> None:
    store, digest = shelf
    captured(shelf, write_cache(tmp_path / "cache", files=20))
    to = tmp_path / "engine" / "cache"
    look = f"import os; print('found', sorted(os.listdir({str(to)!r})))"
    launcher = launch(
        restore={
            "mode": "process",
            "kind": "snapshot",
            "from": f"file://{store}",
            "digest": digest,
            "compileCache": {"key": {**KEY, "driver": driver}, "dir": str(to)},
        },
        command=[sys.executable, "-u", "-c", f"{look}; exec(open({str(ENGINE)!r}).read())"],
    )
    state = launcher.until("ready")
    told = state["restore"]["compileCache"]
    assert told["used"] is used, told
    names = "['.glowplug-compiled.json', '.hidden', 'inductor', 'triton']" if used else "[]"
    launcher.says(f"found {names}")


@pytest.mark.parametrize(
    ("cache", "word"),
    [
        ({"key": KEY}, "compileCache.dir"),
        ({"key": KEY, "dir": ""}, "compileCache.dir"),
        ({"dir": "/cache"}, "compileCache.key"),
        ({"dir": "/cache", "key": {"driver": 5}}, "compileCache.key"),
        ("yes", "compileCache.dir"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_field(cache: object, word: str) -> None:
    restore = {"mode": "process", "from": "s3://b", "kind": "snapshot", "compileCache": cache}
    config = {"model": "m", "port": 1, "launcherPort": 2, "command": ["x"], "modelDir": "/m"}
    with pytest.raises(ConfigError, match=word):
        from_environment({"GLOWPLUG_LAUNCH": json.dumps({**config, "restore": restore})})
