"""The launcher's small parts: what is counted, what is recognised, what the zipapp is."""

import ast
import sys
from pathlib import Path

import pytest

from glowplug_snapshotter.launcher import build, inflight, weights

LAUNCHER = Path(build.__file__).parent
METRICS = """
# HELP vllm:num_requests_running x
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0"} 1.0
vllm:num_requests_running_total 99
nv_requests{request_type="waiting",version="1"} 4
nv_requests{request_type="context"} 5
tgi_queue_size 7
"""


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        (("vllm:num_requests_running", "vllm:num_requests_waiting"), 6),
        (('nv_requests{request_type="waiting"}',), 4),
        (("tgi_queue_size",), 7),
        (("absent",), None),
    ],
)
def test_the_series_that_count_are_summed(selectors: tuple[str, ...], expected: float) -> None:
    assert inflight.sum_of(METRICS, selectors) == expected


def test_the_file_system_of_a_directory_is_found(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 0:20 / / rw shared:1 - ext4 /dev/vda rw\n"
        "23 22 0:21 / /models rw - tmpfs tmpfs rw,size=1g\n"
        "24 23 0:22 / /models/with\\040space rw master:3 - xfs /dev/vdb rw\n"
    )
    for path, expected in [
        ("/models/m", "tmpfs"),
        ("/modelsx", "ext4"),
        ("/models/with space/m", "xfs"),
    ]:
        assert weights.file_system(path, str(mounts)) == expected
    assert weights.file_system("/x", str(tmp_path / "absent")) == ""


def test_the_zipapp_is_small_and_always_the_same_bytes(tmp_path: Path) -> None:
    build.build(tmp_path / "a")
    build.build(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").stat().st_size < 256 * 1024


@pytest.mark.parametrize("path", sorted(LAUNCHER.glob("*.py")), ids=lambda path: path.name)
def test_the_launcher_is_python_39_and_standard_library_only(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        for name in names:
            assert name.partition(".")[0] in sys.stdlib_module_names
        assert not isinstance(node, ast.Match)
