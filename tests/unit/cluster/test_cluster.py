"""Which cluster is used, which process is ours, and what makes an image stale."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import images
from cluster.config import ClusterError, mode, paths
from cluster.processes import Daemon, is_running, stop


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "local"),
        ({"KUBECONFIG": "/production"}, "local"),  # alone it never redirects tests
        ({"GLOWPLUG_KUBECONFIG": "/mine"}, "existing"),
        ({"GLOWPLUG_CLUSTER": "existing", "KUBECONFIG": "/mine"}, "existing"),
        ({"GLOWPLUG_CLUSTER": "kind"}, "kind"),
    ],
)
def test_the_environment_chooses_the_cluster(environ: dict[str, str], expected: str) -> None:
    assert mode(environ) == expected


def test_an_unknown_choice_names_the_variable_and_what_it_may_be() -> None:
    with pytest.raises(ClusterError, match=r"GLOWPLUG_CLUSTER is 'minikube'.*local, kind"):
        mode({"GLOWPLUG_CLUSTER": "minikube"})


def test_an_existing_cluster_needs_a_kubeconfig_that_exists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GLOWPLUG_KUBECONFIG", str(tmp_path / "absent"))
    with pytest.raises(ClusterError, match="GLOWPLUG_KUBECONFIG"):
        paths()

    (tmp_path / "absent").touch()
    assert paths().kubeconfig == tmp_path / "absent"


def test_a_daemon_is_restarted_only_when_what_it_was_started_from_changed(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("one")
    daemon = Daemon("sleeper", ["sleep", "60"], tmp_path, inputs=(config,))
    try:
        daemon.start()
        first = json.loads(daemon.pidfile.read_text())["pid"]
        daemon.start()
        assert json.loads(daemon.pidfile.read_text())["pid"] == first

        config.write_text("two")
        daemon.start()
        assert json.loads(daemon.pidfile.read_text())["pid"] != first
    finally:
        stop(daemon.pidfile)
    assert not daemon.running()


def test_a_process_that_got_a_dead_daemons_pid_is_never_ended(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        pidfile = tmp_path / "etcd.json"
        record = {"pid": stranger.pid, "start": 1, "boot": boot, "made_from": ""}
        pidfile.write_text(json.dumps(record))

        assert not is_running(pidfile)
        stop(pidfile)

        assert not pidfile.exists()
        assert stranger.poll() is None
        os.kill(stranger.pid, 9)


def test_a_daemon_that_ends_at_once_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    daemon = Daemon("broken", ["sh", "-c", "echo no such flag; exit 2"], tmp_path)
    daemon.start()
    with pytest.raises(ClusterError, match=r"broken ended at once.*\n.*no such flag"):
        daemon.wait(lambda: False, 10)


def test_an_image_is_stale_when_a_file_that_it_copies_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(images, "REPOSITORY", tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("1")
    (tmp_path / "other.py").write_text("1")
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM x\nCOPY --from=x /etc /etc\nCOPY --chown=1:1 src/ \\\n  /app/\n")
    before = images.recipe(dockerfile, "base")

    (tmp_path / "other.py").write_text("2")
    assert images.recipe(dockerfile, "base") == before
    (tmp_path / "src/a.py").write_text("2")
    assert images.recipe(dockerfile, "base") != before
    assert images.recipe(dockerfile, "another base") != images.recipe(dockerfile, "base")
