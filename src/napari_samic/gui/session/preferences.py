"""What the user set in napari's preferences for this plugin; napari has them from 0.9 on."""

from __future__ import annotations

from typing import Any

PLUGIN = "napari-samic"
DEFAULT_MODEL = "tiny"


def model() -> str:
    """The segmenter that the dock opens with."""
    return str(getattr(_group("start"), "model", "") or DEFAULT_MODEL)


def _group(name: str) -> Any:
    """Settings of the manifest's configuration `name`; None where napari has none."""
    try:
        from napari.settings import get_plugin_settings
    except ImportError:  # before napari 0.9
        return None
    try:
        return getattr(get_plugin_settings(PLUGIN), name, None)
    except KeyError:  # the plugin's manifest is not registered
        return None
