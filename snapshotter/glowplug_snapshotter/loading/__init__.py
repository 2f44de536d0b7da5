"""Tensors straight from a snapshot, a source or a directory, as they arrive, on host or GPU."""
