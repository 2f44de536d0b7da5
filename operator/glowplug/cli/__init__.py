"""The `glowplug` command, also `kubectl glowplug`: what models do, why, and what it costs."""
