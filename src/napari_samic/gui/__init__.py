"""The window: everything that knows napari, and nothing that computes.

Only rooms in here import napari, qtpy or magicgui; nothing outside imports them from here.
"""
