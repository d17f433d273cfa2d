"""One generator job in one napari worker: progress, cancel, errors."""
