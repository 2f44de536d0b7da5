"""Act: make the cluster as decided. Every call may be repeated, and every write passes `Writer`."""
