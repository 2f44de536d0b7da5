"""Builds the launcher's zipapp: `python -m glowplug_snapshotter.launcher.build OUT`.

The same sources give the same bytes (nothing is compressed, times are fixed), so that a ConfigMap
that holds it changes only when the launcher does.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

LIMIT = 1024 * 1024  # bytes of a ConfigMap
PACKAGE = "glowplug_launcher"
MAIN = f"import sys\n\nfrom {PACKAGE}.main import main\n\nsys.exit(main())\n"
LEFT_OUT = ("build.py",)


def build(out: Path) -> None:
    """Write the zipapp to `out`."""
    here = Path(__file__).parent
    members = {"__main__.py": MAIN.encode()}
    for path in sorted(here.glob("*.py")):
        if path.name not in LEFT_OUT:
            members[f"{PACKAGE}/{path.name}"] = path.read_bytes()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), members[name])
    if out.stat().st_size > LIMIT:
        raise SystemExit(f"{out} is larger than a ConfigMap may be")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m glowplug_snapshotter.launcher.build OUT")
    build(Path(sys.argv[1]))
