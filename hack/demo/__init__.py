"""`make demo`: the whole product in a few minutes, on a real cluster with a real model."""
