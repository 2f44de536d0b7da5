"""Takes and restores model snapshots, and starts engines on them."""
