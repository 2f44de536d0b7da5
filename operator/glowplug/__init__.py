"""Glowplug: a Kubernetes operator that serves GPU models from zero."""
