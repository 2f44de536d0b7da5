"""Writes docs/reference.md, every field of every kind, from the CRDs."""
