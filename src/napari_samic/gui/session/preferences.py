"""What is remembered of the user: napari's preferences for this plugin, and the last projects.

napari has such preferences from 0.9 on; the projects stand in a file of ours.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from napari_samic.core.errors import SamicError
from napari_samic.io.cache import home_folder
from napari_samic.io.files import atomic_file
from napari_samic.io.text_files import read_json

PLUGIN = "napari-samic"
DEFAULT_MODEL = "tiny"
MOST_RECENT = 8
"""Projects that are remembered."""


def model() -> str:
    """The segmenter that the dock opens with."""
    return str(getattr(_group("start"), "model", "") or DEFAULT_MODEL)


def recent_projects() -> list[Path]:
    """Folders of the projects that were open last, the newest first; some may be gone."""
    with suppress(SamicError):
        listed = read_json(_recent_file(), "the list of projects")
        listed = listed if isinstance(listed, list) else []
        return [Path(folder) for folder in listed if isinstance(folder, str)]
    return []


def remember_project(folder: Path) -> None:
    """Put a project at the head of the list."""
    folder, before = folder.absolute(), recent_projects()
    kept = [folder, *(other for other in before if other != folder)][:MOST_RECENT]
    if kept != before:
        with suppress(SamicError), atomic_file(_recent_file(), overwrite=True) as temporary:
            temporary.write_text(json.dumps([str(k) for k in kept], indent=1), encoding="utf-8")


def _recent_file() -> Path:
    return home_folder() / "recent-projects.json"


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
