"""Where a project's images came from, and how they are brought back.

What is noted of an image layer is its file or folder, our sample set, or else the TIFFs that jobs
wrote into the project. Notes may come from somebody else: they name images only, which our own
reader opens, in folders that the user chose (see `trusted_files`). Knows layers and the viewer, and
no job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_samic.core.errors import InputError
from napari_samic.gui.data import layer_choice, trusted_files
from napari_samic.gui.data.autosave import KEY
from napari_samic.gui.data.layer_pixels import (
    CHANNEL,
    FILE,
    FILES,
    STORED,
    Channel,
    LayerNames,
    file_of,
)
from napari_samic.gui.data.lazy_layers import large_layer
from napari_samic.gui.data.project import Project
from napari_samic.io.images import open_file, open_images
from napari_samic.io.paths import is_readable, list_source, natural_key
from napari_samic.io.readers import LazyArray
from napari_samic.sample_data import kvasir

PLUGIN = "napari-samic"
SAMPLES = ("scenes", "coins", "kvasir")
"""Ours; those of other plugins are not opened from notes."""

Note = Mapping[str, Any]
May = Callable[[Path], bool]
"""Whether a file may be opened."""


def note_images(
    notes: dict[str, Any], layers: Sequence[Any], chosen: Any | None, colors: Sequence[Any] = ()
) -> None:
    """Note where image layers came from, which is the chosen one, and as which it is seen."""
    own = dict(notes.get(KEY, {}))
    own["images"] = [_note(layer) for layer in layers]
    own["image"] = None if chosen is None else str(chosen.name)
    own["colors"] = [str(layer.name) for layer in colors]
    notes[KEY] = own


def files_of(layer: Any) -> list[Path]:
    """The files that an image layer shows."""
    paths = [file_of(layer), *layer.metadata.get(FILES, ())]
    return [Path(path) for path in paths if path]


def _note(layer: Any) -> dict[str, Any]:
    sample = getattr(layer.source, "sample", None)
    levels = layer.data if layer.multiscale else [layer.data]
    files = [str(path) for path in layer.metadata.get(FILES, ())]
    return {
        "name": str(layer.name),
        "path": file_of(layer),
        "sample": list(sample) if sample else [],
        "files": files,
        "shape": [int(n) for n in levels[0].shape],
        "rgb": bool(layer.rgb),
        "channel": list(layer.metadata.get(CHANNEL, ())),
        "stored": bool(layer.metadata.get(STORED) or (layer.source.path and not files)),
    }


def bring_back(
    viewer: Any, names: LayerNames, project: Project, ask: trusted_files.Ask
) -> Any | None:
    """Open the images of a project that are not open; the chosen one is returned.

    Parameters
    ----------
    viewer : napari.Viewer
    names : LayerNames
    project : Project
    ask : callable
        Whether files may be opened that lie elsewhere; see `trusted_files.allows`.

    Raises
    ------
    InputError
        Some are not where they were, or can't be opened; the others are open then.
    """
    own = project.notes.get(KEY)
    own = own if isinstance(own, dict) else {}
    noted = own.get("images")
    notes = [note for note in noted if _is_sound(note)] if isinstance(noted, list) else []
    missing = [note for note in notes if _find_open(viewer, note) is None]
    allows = trusted_files.allowing(project.folder)
    strange = [p for note in missing for p in _files(note) if not allows(p)]
    granted = set(strange) if strange and ask(strange) else set()
    trusted_files.remember(granted)
    lost, chosen = [], None

    def may(path: Path) -> bool:
        return path in granted or allows(path)

    for note in notes:
        layer = _find_open(viewer, note) or _open_noted(viewer, note, project, may)
        if layer is None:
            lost.append(_why_lost(note, may))
            continue
        names.of(layer)
        chosen = layer if note["name"] == own.get("image") else chosen or layer
    if lost:
        msg = f"{', '.join(lost)}. Open it again yourself; its prompts are kept."
        raise InputError(msg)
    return chosen


def noted_colors(viewer: Any, project: Project, chosen: Any) -> tuple[Any, ...]:
    """The layers as which the chosen image was seen; itself if they are not open."""
    own = project.notes.get(KEY)
    names = own.get("colors") if isinstance(own, dict) else None
    ways = [layers for _, layers in layer_choice.color_choices(viewer, chosen)]
    same = (way for way in ways if way and [str(layer.name) for layer in way] == names)
    return next(same, (chosen,))


def _is_sound(note: Any) -> bool:
    """Whether a note is as `_note` makes them; what is not has no image."""
    if not isinstance(note, dict) or not isinstance(note.get("name"), str):
        return False
    texts = [note.get("path", ""), *_listed(note, "files"), *_listed(note, "sample")]
    return all(isinstance(text, str) and "\0" not in text for text in texts)


def _listed(note: Note, key: str) -> list[Any]:
    entries = note.get(key)
    return entries if isinstance(entries, list) else []


def _files(note: Note) -> list[Path]:
    """What a note names: its files, else its path; none of a sample set."""
    paths = _listed(note, "files") or ([note["path"]] if note.get("path") else [])
    return [] if _listed(note, "sample") else [Path(path) for path in paths]


def _why_lost(note: Note, may: May) -> str:
    name, files = note["name"], _files(note)
    if path := next((file for file in files if not may(file)), None):
        return f"{name}: {path} was not opened"
    if path := next((file for file in files if file.is_file() and not is_readable(file)), None):
        return f"{name}: {path.name} is there, but is not opened from notes"
    return f"{name}: not where it was"


def _find_open(viewer: Any, note: Note) -> Any | None:
    for layer in layer_choice.image_layers(viewer):
        existing = _note(layer)
        if all(existing[key] == note.get(key) for key in ("name", "path", "sample", "files")):
            return layer
    return None


def _open_noted(viewer: Any, note: Note, project: Project, may: May) -> Any | None:
    """Open an image from where it came, else from what jobs wrote of it."""
    sample, before = _listed(note, "sample"), list(viewer.layers)
    if sample:
        if sample not in [[PLUGIN, key] for key in SAMPLES]:
            return None
        if sample == [PLUGIN, "kvasir"] and not kvasir.is_here():  # nothing is fetched unasked
            return None
        viewer.open_sample(*sample)
    else:
        for files in (_files(note), written(project, note["name"])):
            opened = _read_layer(files, note) if files and all(map(may, files)) else None
            if opened is not None:
                viewer.add_image(opened[0], **opened[1])
                break
    new = [layer for layer in layer_choice.image_layers(viewer) if layer not in before]
    same = [layer for layer in new if str(layer.name) == note["name"]]
    return (same or new or [None])[0]


def _read_layer(files: Sequence[Path], note: Note) -> tuple[Any, dict[str, Any]] | None:
    """Array and options of a layer as it was; None if it can't be so."""
    name, first = note["name"], files[0]
    if first.is_dir() and not is_readable(first):
        array, options, _ = stack(list_source(first), name)
        options["metadata"][FILE] = str(first)
    elif not all(is_readable(file) for file in files):
        return None
    elif len(files) == 1 and not _listed(note, "files"):
        rgb = note["rgb"] if isinstance(note.get("rgb"), bool) else None  # napari guesses it
        array, is_stored = _as_noted(first, note)
        metadata = {FILE: str(first), **({STORED: True} if is_stored else {})}
        options = {"name": name, "rgb": rgb, "metadata": metadata}
    else:
        array, options, _ = stack(files, name)
    if isinstance(array, list):  # levels of a large one
        return (array, options) if note.get("shape") in (None, list(array[0].shape)) else None
    if (channel := _channel_of(note, array)) is not None:
        array = np.moveaxis(array, channel[0], 0)[channel[1]]
        options["metadata"][CHANNEL] = channel
    wanted = note.get("shape")
    return None if wanted and list(array.shape) != wanted else (array, options)


def _channel_of(note: Note, array: Any) -> Channel | None:
    """The axis and the channel that a layer was of its file; None if it was all of it."""
    match _listed(note, "channel"):
        case [int(axis), int(number)] if -1 <= axis < array.ndim - 2 and (
            0 <= number < array.shape[axis]
        ):
            return axis, number
    return None


def _as_noted(path: Path, note: Note) -> tuple[Any, bool]:
    """A file as the layer had it, and whether that is as stored; by its shape in older notes."""
    if note.get("stored") is True:
        return _whole(path, as_stored=True), True
    array = _whole(path)
    if "stored" in note or list(array.shape) == (wanted := note.get("shape")) or not wanted:
        return array, False
    return _whole(path, as_stored=True), True


def _whole(path: Path, *, as_stored: bool = False) -> Any:
    """All of a file in its own order of axes; a stack lazily.

    Parameters
    ----------
    as_stored : bool
        As napari's reader has it: no palette, MinIsWhite, CMYK or Orientation.
    """
    opened = open_file(path)
    if opened is None:
        return open_images([path])[0].read()
    lazy = opened.series[0]
    lazy = replace(lazy, finish=None) if as_stored else lazy
    tail = 3 if len(lazy.shape) > 2 and lazy.shape[-1] in (3, 4) else 2
    lead = lazy.shape[:-tail]
    if not lead:
        return open_images([path])[0].read() if lazy.finish is not None else _part(lazy, ())
    import dask
    import dask.array as da

    first = _part(lazy, (0,) * len(lead))
    parts = [
        da.from_delayed(dask.delayed(_part)(lazy, index), first.shape, first.dtype)
        for index in np.ndindex(*lead)
    ]
    return da.stack(parts).reshape(*lead, *first.shape)


def _part(lazy: LazyArray, index: tuple[int, ...]) -> Any:
    """One plane, (H, W) or (H, W, C), as it is shown."""
    pixels = lazy.take((*index, *[slice(None)] * (len(lazy.shape) - len(index))))
    return pixels if lazy.finish is None else lazy.finish(pixels)


def written(project: Project, name: str) -> list[Path]:
    """The TIFFs that jobs wrote of an image layer, in the order of its slices."""
    folder = project.images_folder
    files = folder.iterdir() if folder.is_dir() else ()
    mine = [p for p in files if p.suffix == ".tif" and (p.stem == name or _is_slice(p.stem, name))]
    return sorted(mine, key=lambda path: natural_key(path.stem))


def _is_slice(stem: str, name: str) -> bool:
    return stem.startswith(f"{name}[") and stem.endswith("]")


def stack(files: Sequence[Path], name: str) -> tuple[Any, dict[str, Any], str]:
    """Image files of one shape as one lazy layer that knows them; a lone one with all its planes.

    Raises
    ------
    InputError
        The first can't be read.
    """
    import dask
    import dask.array as da

    planes = [open_images([path])[0] for path in files]
    stack_shape: tuple[int, ...] = (len(files),)
    if len(files) == 1:
        images = open_images(files)
        planes = [p for p in images if p.name == name] or [
            p for p in images if p.name == images[0].name
        ]
        stack_shape = planes[0].stack_shape
    metadata = {FILES: [str(path) for path in files]}
    if len(planes) == 1 and (large := large_layer(planes[0], name, metadata)) is not None:
        return large
    first = planes[0].read()
    lazy = [
        da.from_delayed(dask.delayed(_read)(plane, first), shape=first.shape, dtype=first.dtype)
        for plane in planes
    ]
    array = da.stack(lazy).reshape(*stack_shape, *first.shape) if stack_shape else first
    rgb = first.ndim == 3 and first.shape[2] in (3, 4)
    return array, {"name": name, "rgb": rgb, "metadata": metadata}, "image"


def _read(plane: Any, first: Any) -> Any:
    """A plane as the first one is; black if it is of another shape, which a stack can't show."""
    pixels = plane.read()
    return pixels if pixels.shape == first.shape else np.zeros_like(first)
