"""Lets `python3 -m glowplug_snapshotter` stand for the command `glowplug-snapshotter`."""

import sys

from glowplug_snapshotter.main import main

sys.exit(main())
