"""ImageJ ROIs: the objects of a label image or stack as a zip that Fiji's ROI Manager opens.

An outline of one ring is a traced selection with whole numbers; holes and several parts are a
composite selection. Corners of pixels are whole numbers, (0, 0) is the upper left corner of the
image, so an outline that ImageJ fills is the very object. `roifile` knows the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np

from napari_samic.core.label_objects import CroppedObject, LabelObjects
from napari_samic.export.polygons import Ring, polygons
from napari_samic.io.files import atomic_file

if TYPE_CHECKING:
    from roifile import ImagejRoi

_IMAGEJ_ORDER = "CZT"
"""Axes of a stack in ImageJ, the fastest first."""
_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0  # of java.awt.geom.PathIterator
_GROUPS = 255
_UNWRITABLE = re.compile(r"[/\\:\x00-\x1f]|[^\x00-\uffff]")
"""In names: what parts folders, and letters of two numbers in UTF-16: `roifile` counts one."""


def imagej_rois(
    image: LabelObjects,
    *,
    index: tuple[int, ...] = (),
    stack_shape: tuple[int, ...] = (),
    stack_axes: str = "",
) -> Iterator[ImagejRoi]:
    """Make a ROI of each object of one plane.

    Parameters
    ----------
    image : LabelObjects
    index : tuple of int
        Place of the plane in its stack, from 0.
    stack_shape : tuple of int
        Of the stack.
    stack_axes : str
        Letters of the axes of the stack; where they are not all C, Z and T, a ROI has the plane's
        number alone.

    Yields
    ------
    ImagejRoi
        Named CLASS-VALUE, in a stack PLANE-CLASS-VALUE; its group is the class (0 above 255).
    """
    position = _position(index, stack_shape, stack_axes)
    for cutout in image.cutouts():
        label = image.of(cutout.value).label
        name = _UNWRITABLE.sub("_", f"{image.class_name(label)}-{cutout.value}")
        roi = _roi(cutout)
        roi.name = f"{position['position']:04}-{name}" if position else name
        roi.group = label if label <= _GROUPS else 0
        for field, number in position.items():
            setattr(roi, field, number)
        yield roi


def write_roi_set(path: str | Path, rois: Iterable[ImagejRoi], *, overwrite: bool = False) -> None:
    """Write ROIs as a zip, the same bytes for the same ROIs.

    Parameters
    ----------
    rois : iterable of ImagejRoi
        Of different names.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    OutputError
        Disk full, read-only, or a file in the way.
    """
    with atomic_file(path, overwrite=overwrite) as temporary, ZipFile(temporary, "w") as file:
        for roi in rois:  # a ZipInfo of its own: `roifile.roiwrite` notes the time of day
            file.writestr(ZipInfo(f"{roi.name}.roi"), roi.tobytes(), ZIP_DEFLATED)


def _position(
    index: tuple[int, ...], stack_shape: tuple[int, ...], stack_axes: str
) -> dict[str, int]:
    """Fields of a ROI that say its plane, from 1; nothing for a lone image."""
    if not index:
        return {}
    is_known = len(set(stack_axes)) == len(index) and set(stack_axes) <= set(_IMAGEJ_ORDER)
    if not is_known:
        return {"position": int(np.ravel_multi_index(index, stack_shape)) + 1}
    place = dict(zip(stack_axes, index, strict=True))
    length = dict(zip(stack_axes, stack_shape, strict=True))
    places = [place.get(axis, 0) for axis in _IMAGEJ_ORDER]
    lengths = [length.get(axis, 1) for axis in _IMAGEJ_ORDER]
    fields = {"position": int(np.ravel_multi_index(places, lengths, order="F")) + 1}
    return fields | {f"{axis.lower()}_position": n + 1 for axis, n in place.items()}


def _roi(cutout: CroppedObject) -> ImagejRoi:
    from roifile import ROI_TYPE, ImagejRoi

    row, column = cutout.corner_rc
    corner = np.array([column, row])
    rings = [ring + corner for part in polygons(cutout.inside) for ring in part]
    if len(rings) == 1:
        roi = ImagejRoi.frompoints(rings[0], name="")
        roi.roitype = ROI_TYPE.TRACED
    else:
        path = np.concatenate([_path(ring) for ring in rings])
        roi = ImagejRoi(roitype=ROI_TYPE.RECT, shape_roi_size=len(path), multi_coordinates=path)
    height, width = cutout.inside.shape
    roi.left, roi.top, roi.right, roi.bottom = column, row, column + width, row + height
    return roi


def _path(ring: Ring) -> Ring:
    """One closed ring of a composite: an operation before each x and y."""
    operations = np.full((len(ring), 1), _LINE)
    operations[0] = _MOVE
    return np.append(np.hstack([operations, ring]), _CLOSE).astype(np.float32)
