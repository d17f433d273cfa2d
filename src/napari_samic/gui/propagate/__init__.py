"""The step Propagate: all other images."""
