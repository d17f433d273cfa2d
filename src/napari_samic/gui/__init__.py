"""The window: everything that knows napari, and nothing that computes.

Only rooms in here import napari or qtpy; nothing outside imports them from here.
"""
