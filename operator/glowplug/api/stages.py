"""The stages of a cold start, in the order in which a starting replica passes them."""

from typing import Final

UNATTRIBUTED: Final = "unattributed"
"""Time that no stage accounts for."""

STAGES: Final = (
    "decide",
    "schedule",
    "node",
    "sandbox",
    "image",
    "restore",
    "start",
    "load",
    "compile",
    "route",
    "first_token",
    UNATTRIBUTED,
)
