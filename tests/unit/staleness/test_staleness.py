"""Late, doubled and reordered events, lost answers, dead operators: never too many, one same end.

The API server is simulated and time is virtual, so a seed tells the same story each time. A sample
of the seeds runs here (GLOWPLUG_SEED moves it); GLOWPLUG_SOAK=1 runs 500.
"""

import os
import random

import pytest

from .story import Story
from .virtual import VirtualLoop

SOAK = os.environ.get("GLOWPLUG_SOAK") == "1"
FIRST = int(os.environ.get("GLOWPLUG_SEED", "1"))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + (500 if SOAK else 15)))
def test_same_end_in_spite_of(seed, monkeypatch):
    random.seed(seed)  # the product's own jitter
    loop = VirtualLoop()
    try:
        story = Story(seed, loop, monkeypatch)
        loop.run_until_complete(story.tell())
    finally:
        loop.close()
    assert not story.complaints
    assert story.end() == story.promised()
