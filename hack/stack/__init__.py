"""Puts Glowplug, its storage and the example model on a cluster, for the demo and the tests."""
