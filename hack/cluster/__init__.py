"""A real one-node Kubernetes for development and tests, without Docker."""
