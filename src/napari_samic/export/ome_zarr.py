"""OME-Zarr: label images as zarr folders that OME's readers know.

Source: OME-Zarr 0.5, https://ngff.openmicroscopy.org/0.5, sections on multiscales and labels; zarr
format 3. A folder holds one label image of one level, with `image-label` metadata: it opens by
itself, and can be moved below `labels/` of its image. Read again by `readers.open_zarr`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from napari_samic.core.errors import InputError, OutputError, SamicError
from napari_samic.core.label_objects import LabelObjects
from napari_samic.core.types import IntArray
from napari_samic.export.overlays import label_color
from napari_samic.io.files import TEMP_SUFFIX, output_error
from napari_samic.io.paths import image_of
from napari_samic.io.readers import is_zarr

VERSION = "0.5"
_STACK_AXES = "tczyx"  # the order that the format wants


def write_ome_zarr(
    path: str | Path,
    planes: Sequence[LabelObjects],
    stack_shape: tuple[int, ...] = (),
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    unit: str = "",
    depth: float | None = None,
    stack_axes: str = "",
    overwrite: bool = False,
) -> None:
    """Write the label planes of one image or stack; the folder is complete or not there.

    Parameters
    ----------
    planes : sequence of LabelObjects
        In the order of their places in the stack, of one shape (H, W).
    stack_shape : tuple of int
        Lengths of the axes before rows and columns; at most three.
    spacing : (row, column) float
        Size of a pixel.
    unit : str
        A name of the format's list, such as micrometer; "" for none.
    depth : float, optional
        Distance of two planes, in the same unit.
    stack_axes : str
        Letters of the axes before rows and columns, where they are known.

    Raises
    ------
    InputError
        More than five axes, or planes of other shapes.
    OutputError
        A folder in the way, or the disk refuses.
    """
    whole = _joined(planes, stack_shape, str(path))
    names = _axes(len(stack_shape), stack_axes.lower(), str(path))
    with _atomic_folder(Path(path), overwrite=overwrite) as temporary:
        _write(temporary, whole, names)
        _describe(temporary, planes, names, spacing, unit, depth)


def _joined(planes: Sequence[LabelObjects], stack_shape: tuple[int, ...], where: str) -> IntArray:
    shapes = {plane.labels.shape for plane in planes}
    if len(shapes) != 1 or len(planes) != int(np.prod(stack_shape)):
        msg = f"{where}: {len(planes)} planes of {sorted(shapes)} for a stack of {stack_shape}."
        raise InputError(msg)
    return np.stack([p.labels for p in planes]).reshape(*stack_shape, *shapes.pop())


def _axes(count: int, given: str, where: str) -> str:
    """As given, if the format allows that; else z first, then time, then channel."""
    if len(given) == count and given == "".join(a for a in "tcz" if a in given):
        return f"{given}yx"
    if count > 3:
        raise InputError(f"{where}: {count + 2} axes, OME-Zarr has five at most. Export a part.")
    kept = ("", "z", "tz", "tcz")[count]
    return "".join(a for a in _STACK_AXES if a in kept + "yx")


def _write(folder: Path, whole: IntArray, names: str) -> None:
    import zarr

    chunks = (1,) * (whole.ndim - 2) + tuple(min(n, 1024) for n in whole.shape[-2:])
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    array = group.create_array(
        "0", shape=whole.shape, dtype=whole.dtype, chunks=chunks, dimension_names=list(names)
    )
    array[...] = whole


def _describe(
    folder: Path,
    planes: Sequence[LabelObjects],
    names: str,
    spacing: tuple[float, float],
    unit: str,
    depth: float | None,
) -> None:
    import zarr

    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": n, "type": kinds.get(n, "space")} for n in names]
    lengths = "yx" if depth is None else "zyx"  # of a time series nothing has a depth
    axes = [{**a, "unit": unit} if unit and a["name"] in lengths else a for a in axes]
    sizes = dict(zip("yx", spacing, strict=True)) | ({"z": depth} if depth is not None else {})
    scale = [float(sizes.get(name, 1.0)) for name in names]
    moved = [{"type": "scale", "scale": scale}]
    level = {"path": "0", "coordinateTransformations": moved}
    zarr.open_group(folder, mode="r+").attrs["ome"] = {
        "version": VERSION,
        "multiscales": [{"name": folder_name(planes), "axes": axes, "datasets": [level]}],
        "image-label": _label_metadata(planes),
    }


def folder_name(planes: Sequence[LabelObjects]) -> str:
    """Name of the image or stack."""
    return image_of(planes[0].name) if len(planes) > 1 else planes[0].name


def _label_metadata(planes: Sequence[LabelObjects]) -> dict[str, Any]:
    values = sorted({int(v) for plane in planes for v in np.unique(plane.labels) if v})
    if not values:
        return {}
    colors = [{"label-value": v, "rgba": [*label_color(v), 255]} for v in values]
    if len(planes) > 1:  # values count anew in each plane
        return {"colors": colors}
    return {"colors": colors, "properties": [_property(planes[0], v) for v in values]}


def _property(plane: LabelObjects, value: int) -> dict[str, Any]:
    about = plane.of(value)
    properties = {"label-value": value, "class": plane.class_name(about.label)}
    return properties if about.score is None else properties | {"score": about.score}


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError if `path` can't be a name, or is what may not be replaced."""
    try:
        is_there = path.exists()
    except OSError as error:  # a name that is too long
        raise output_error(path, error) from error
    if is_there and not (overwrite and is_zarr(path)):
        hint = "or overwrite it (--overwrite)" if is_zarr(path) else "it is no zarr folder"
        raise OutputError(f"{path}: exists already. Choose another name, {hint}.")


@contextmanager
def _atomic_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """As `atomic_file`, for a zarr folder."""
    check_free(path, overwrite=overwrite)
    temporary, old = (path.with_name(f".{uuid4().hex}{TEMP_SUFFIX}") for _ in range(2))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if path.exists():
            path.replace(old)
        temporary.replace(path)
    except SamicError:
        raise
    except OSError as error:
        with suppress(OSError):
            if old.exists() and not path.exists():
                old.replace(path)
        raise output_error(path, error) from error
    finally:
        for left in (temporary, old):
            shutil.rmtree(left, ignore_errors=True)
