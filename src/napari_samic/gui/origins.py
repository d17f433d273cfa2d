"""Where a project's images came from, and how they are brought back.

What is noted of an image layer is its file or folder, its sample set, or else the TIFFs that jobs
wrote into the project. Knows layers and the viewer, and no job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_samic.errors import InputError
from napari_samic.gui import picking
from napari_samic.gui.memory import KEY
from napari_samic.gui.pixels import FILES, Names
from napari_samic.gui.project import Project
from napari_samic.images import open_images
from napari_samic.listing import natural_key

Note = Mapping[str, Any]


def note_images(notes: dict[str, Any], layers: Sequence[Any], chosen: Any | None) -> None:
    """Note where image layers came from, and which is the chosen one."""
    own = dict(notes.get(KEY, {}))
    own["images"] = [_note(layer) for layer in layers]
    own["image"] = None if chosen is None else str(chosen.name)
    notes[KEY] = own


def _note(layer: Any) -> dict[str, Any]:
    source = layer.source
    sample = getattr(source, "sample", None)
    return {
        "name": str(layer.name),
        "path": str(source.path or ""),
        "reader": str(getattr(source, "reader_plugin", None) or ""),
        "sample": list(sample) if sample else [],
        "files": [str(path) for path in layer.metadata.get(FILES, ())],
    }


def bring_back(viewer: Any, names: Names, project: Project) -> Any | None:
    """Open the images of a project that are not open; the chosen one is returned.

    Raises
    ------
    InputError
        Some are not where they were; the others are open then.
    """
    own = project.notes.get(KEY)
    own = own if isinstance(own, dict) else {}
    noted = own.get("images")
    lost, chosen = [], None
    for note in noted if isinstance(noted, list) else []:
        if not isinstance(note, dict) or "name" not in note:
            continue
        layer = _already(viewer, note) or _opened(viewer, note, project)
        if layer is None:
            lost.append(str(note["name"]))
            continue
        names.of(layer)
        chosen = layer if note["name"] == own.get("image") else chosen or layer
    if lost:
        msg = f"{', '.join(lost)}: not where it was. Open it again; its prompts are kept."
        raise InputError(msg)
    return chosen


def _already(viewer: Any, note: Note) -> Any | None:
    for layer in picking.image_layers(viewer):
        found = _note(layer)
        if all(found[key] == note.get(key) for key in ("name", "path", "sample", "files")):
            return layer
    return None


def _opened(viewer: Any, note: Note, project: Project) -> Any | None:
    """Open an image from where it came, else from what jobs wrote of it."""
    path, sample, before = str(note.get("path") or ""), note.get("sample"), list(viewer.layers)
    if sample:
        viewer.open_sample(*sample)
    elif path and Path(path).exists():
        viewer.open(path, plugin=note.get("reader") or None)
    else:
        files = [Path(one) for one in note.get("files") or ()] or written(project, note["name"])
        if not files or not all(one.is_file() for one in files):
            return None
        array, options, _ = stack(files, str(note["name"]))
        viewer.add_image(array, **options)
    made = [one for one in picking.image_layers(viewer) if one not in before]
    same = [one for one in made if str(one.name) == note["name"]]
    return (same or made or [None])[0]


def written(project: Project, name: str) -> list[Path]:
    """The TIFFs that jobs wrote of an image layer, in the order of its slices."""
    folder = project.images_folder
    found = folder.iterdir() if folder.is_dir() else ()
    mine = [p for p in found if p.suffix == ".tif" and (p.stem == name or _is_slice(p.stem, name))]
    return sorted(mine, key=lambda path: natural_key(path.stem))


def _is_slice(stem: str, name: str) -> bool:
    return stem.startswith(f"{name}[") and stem.endswith("]")


def stack(files: Sequence[Path], name: str) -> tuple[Any, dict[str, Any], str]:
    """Image files of one shape as one lazy layer that knows them; a lone one as it is.

    Raises
    ------
    InputError
        The first can't be read.
    """
    import dask
    import dask.array as da

    planes = [open_images([path])[0] for path in files]
    first = planes[0].read()
    lazy = [
        da.from_delayed(dask.delayed(_read)(plane, first), shape=first.shape, dtype=first.dtype)
        for plane in planes
    ]
    array = da.stack(lazy) if len(files) > 1 else first
    rgb = first.ndim == 3 and first.shape[2] in (3, 4)
    metadata = {FILES: [str(path) for path in files]}
    return array, {"name": name, "rgb": rgb, "metadata": metadata}, "image"


def _read(plane: Any, first: Any) -> Any:
    """A plane as the first one is; black if it is of another shape, which a stack can't show."""
    pixels = plane.read()
    return pixels if pixels.shape == first.shape else np.zeros_like(first)
