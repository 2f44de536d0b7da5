"""PID 1 of an engine's container: restores, starts, reports, drains. Standard library only.

Runs on the Python of engine images, 3.9 or newer, as a zipapp that `build` makes.
"""
