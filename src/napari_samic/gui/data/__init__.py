"""Layers to files and back: pixels, provenance, autosave, recovery."""
