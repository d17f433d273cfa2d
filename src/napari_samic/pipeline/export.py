"""Results to files that others read: TIFF, PNG, OME-Zarr, COCO, GeoJSON, ROIs, tables, prompts."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError, OutputError
from napari_samic.core.label_objects import LabelObjects
from napari_samic.core.settings import ExportSettings
from napari_samic.core.types import MICROMETERS, ImagePlane, Job, JobProgress, PixelSize
from napari_samic.export import ome_zarr
from napari_samic.export.coco import CocoTree
from napari_samic.export.geojson import geojson_tree
from napari_samic.export.imagej_roi import imagej_rois, write_roi_set
from napari_samic.export.label_png import check_numbers, write_label_png
from napari_samic.export.ome_zarr import write_ome_zarr
from napari_samic.export.regionprops import (
    VOLUME_COLUMNS,
    Volumes,
    measurements,
    table_columns,
)
from napari_samic.io import files
from napari_samic.io.images import pixel_size, stack_axes
from napari_samic.io.paths import check_stems, folded, natural_key, some
from napari_samic.io.prompts import PromptFile, save_prompts
from napari_samic.io.tiff import slice_stack
from napari_samic.io.writers import Calibration, write_csv, write_json
from napari_samic.pipeline import common
from napari_samic.pipeline.results.ledger import complete_results
from napari_samic.pipeline.results.reader import (
    StoredResult,
    StoredResults,
    read_results,
    source_plane,
    stacks,
    staleness_notices,
    stem_of_plane,
)
from napari_samic.pipeline.results.writer import LabelFileWriter, recorded_prompts

if TYPE_CHECKING:
    from roifile import ImagejRoi

FORMATS = {
    "tiff": ("stack", ".tif"),
    "png": ("plane", ".png"),
    "ome_zarr": ("stack", ".ome.zarr"),
    "coco": ("all", "coco.json"),
    "geojson": ("plane", ".geojson"),
    "roi": ("stack", ".roi.zip"),
    "table": ("all", "measurements.csv"),
    "prompt_file": ("all", "prompts.json"),
}
"""By setting: what has a file of its own, and how that ends; of all images, its whole name."""
VOLUMES = "measurements_3d.csv"
"""Beside the table: objects of linked stacks, each as a whole."""
_SLICE = re.compile(r"(.+?)((?:\[\d+\])+)")


def export(
    results: Path | str,
    *,
    out: Path | str,
    classes: Path | str | None = None,
    settings: ExportSettings | None = None,
    overwrite: bool = False,
) -> Job[common.JobResult]:
    """Write results in other formats; the results stay as they are.

    Parameters
    ----------
    results : Path
        Folder of `segment`, `annotate` or `accept`.
    out : Path
        Another folder.
    classes : Path, optional
        A prompt file whose names of the classes are used; the results know numbers only.
    settings : ExportSettings, optional
        Which formats, and how.
    overwrite : bool
        Replace files of these names. Others, as of images that are gone, are named and left.

    Returns
    -------
    Job of JobResult
        `figures`: `objects`, and `files` by their names in `out`. `notices`: what is no longer as
        it was when the labels were made, and with `overwrite` files that are not of this export.

    Raises
    ------
    InputError
        No results there, no format asked for, numbers that a PNG can't hold (then nothing is
        written), or `out` is the folder of the results or images.
    OutputError
        One of the files is there already (then nothing is written), unless this very export was
        stopped; another run writes there; or the disk refuses.
    """
    chosen = settings or ExportSettings()
    if not any(getattr(chosen, name) for name in FORMATS):
        raise InputError(f"no format is chosen. Choose one or more of: {', '.join(FORMATS)}.")
    names = recorded_prompts(classes).classes if classes is not None else None
    stored_results = _with_volumes(read_results(results, classes=names))
    folder = common.results_folder(out, stored_results.inputs, classes)
    notices = yield from staleness_notices(stored_results)
    run = {
        "job": "export",
        "of": stored_results.sha256,
        "settings": chosen.to_dict(),
        "classes": names,
    }
    with complete_results(folder, run) as session:
        writing = _ExportWriter(stored_results, folder, chosen, overwrite or session.resumes)
        writing.check()
        for i, result in enumerate(stored_results.images if chosen.png else ()):
            yield JobProgress(
                i, len(stored_results.images), f"{result.label}: do its numbers fit into a PNG?"
            )
            check_numbers(result.label_objects().labels, result.label)
        session.begin()
        yield JobProgress(0, len(stored_results.images), "looking at the results")
        for name, members in stacks(stored_results).items():
            writing.file(name, members)
            yield JobProgress(
                len(writing.done), len(stored_results.images), f"{name}: {writing.objects} objects"
            )
        writing.finish()
    if writing.blank:
        what = "slices without a result are empty in their stack"
        notices = (*notices, f"{what}: {some(writing.blank)}.")
    if writing.mixed:
        what = "not measured as a whole, as objects are linked in some of the slices only"
        notices = (*notices, f"{what}: {some(writing.mixed)}.")
    if writing.dark:
        what = "no intensities, as the image is not where it was, or another"
        notices = (*notices, f"{what}: {some(writing.dark)}.")
    if overwrite and (others := writing.others()):
        notice = f"not of this export, as of an earlier one, left where they are: {some(others)}."
        notices = (*notices, notice)
    figures = {"objects": writing.objects, "files": sorted(writing.files)}
    return common.JobResult(folder, tuple(writing.done), (), {}, figures, notices=notices)


def _with_volumes(results: StoredResults) -> StoredResults:
    """With slices of a stack that are files of their own, as in the window, as one stack again."""
    names = {result.plane.name for result in results.images}
    images = []
    for result in results.images:
        plane, match = result.plane, _SLICE.fullmatch(result.label)
        if match and not plane.index and match[1] not in names and result.image_file:
            index = tuple(int(n) for n in match[2][1:-1].split("]["))
            _, stack_shape = slice_stack(Path(result.image_file)) or ("", ())
            if len(index) == len(stack_shape) and all(map(operator.lt, index, stack_shape)):
                plane = replace(plane, name=match[1], index=index, stack_shape=stack_shape)
        images.append(replace(result, plane=plane))
    return replace(results, images=tuple(images))


def _stack_axes(result: StoredResult) -> str:
    """Letters of the axes of its stack, by the image; "" if that does not tell."""
    stack_shape, file = result.plane.stack_shape, Path(result.image_file)
    if not stack_shape or not result.image_file:
        return ""
    return (slice_stack(file) or (stack_axes(file, stack_shape),))[0]


def _filled(
    members: Sequence[StoredResult], planes: Sequence[LabelObjects]
) -> Sequence[LabelObjects]:
    """Every plane of the stack: nothing is in those that have no result."""
    by_index = {m.plane.index: image for m, image in zip(members, planes, strict=True)}
    empty = replace(planes[0], labels=np.zeros_like(planes[0].labels), about={})
    return [by_index.get(i, empty) for i in np.ndindex(*members[0].plane.stack_shape)]


class _ExportWriter:
    """One export under way."""

    def __init__(
        self, results: StoredResults, folder: Path, settings: ExportSettings, overwrite: bool
    ) -> None:
        self.results, self.folder = results, folder
        self.settings, self.overwrite = settings, overwrite
        self.done: list[str] = []
        self.files: list[str] = []
        self.objects = 0
        self.dark: list[str] = []
        self.blank: list[str] = []
        self.mixed: list[str] = []
        self._images: dict[Path, dict[str, ImagePlane]] = {}
        self._rows: list[dict[str, Any]] = []
        self._volumes: list[dict[str, Any]] = []
        self._coco = CocoTree("polygons" if settings.coco_masks == "polygons" else "rle")

    def names(self) -> Iterator[tuple[str, str]]:
        """Every file that will be written, and of which image."""
        formats = [f for setting, f in FORMATS.items() if getattr(self.settings, setting)]
        owners = []
        for name, members in stacks(self.results).items():
            owners += [("stack", name, name)]
            owners += [("plane", stem_of_plane(m.plane), m.label) for m in members]
        for scope, stem, label in [*owners, ("all", "", "all")]:
            yield from ((stem + ending, label) for of, ending in formats if of == scope)
        if self.settings.table and any(map(self._is_linked, self.results.images)):
            yield VOLUMES, "all"

    def check(self) -> None:
        """Raise before anything is written."""
        if self.settings.prompt_file and self.results.stored is None:
            raise InputError(f"{self.results.folder}: has no prompts.json to export. Leave it out.")
        check_stems(*zip(*self.names(), strict=True))
        for name, _ in self.names():
            path = self.folder / name
            check = ome_zarr.check_free if name.endswith(".zarr") else files.check_free
            check(path, overwrite=True)
            if path.exists() and not self.overwrite:
                msg = f"{path}: exists already. Choose another folder, or overwrite (--overwrite)."
                raise OutputError(msg)

    def file(self, name: str, members: Sequence[StoredResult]) -> None:
        """Write what belongs to one label file."""
        settings, (spacing, unit, depth) = self.settings, self._pixel_size(members[0])
        axes = _stack_axes(members[0])
        planes: list[LabelObjects] = []
        rois: list[ImagejRoi] = []
        volumes, linked = Volumes(name), [self._is_linked(result) for result in members]
        size = PixelSize.of(*spacing, unit, math.nan if depth is None else depth)
        calibration = Calibration(axes, size)
        with LabelFileWriter(
            self._path("tiff", name, on=settings.tiff), overwrite=self.overwrite,
            calibration=calibration,
        ) as labels:  # fmt: skip
            for result, is_linked in zip(members, linked, strict=True):
                image = result.label_objects()
                if settings.tiff:
                    labels.write(result.plane, image.labels)
                self._plane(result, image, spacing, unit)
                if settings.table and is_linked:
                    volumes.add(image, result.plane.index)
                planes += [image] * settings.ome_zarr
                if settings.roi:
                    stack_shape = result.plane.stack_shape
                    stack_axes = calibration.stack_letters(len(stack_shape))
                    rois += imagej_rois(
                        image, index=result.plane.index, stack_shape=stack_shape,
                        stack_axes=stack_axes,
                    )  # fmt: skip
        if settings.roi:
            write_roi_set(self._path("roi", name), rois, overwrite=self.overwrite)
        if settings.ome_zarr:
            stack_shape = members[0].plane.stack_shape
            write_ome_zarr(
                self._path("ome_zarr", name), _filled(members, planes), stack_shape, depth=depth,
                spacing=spacing, unit=unit, stack_axes=axes, overwrite=self.overwrite,
            )  # fmt: skip
        if settings.table and any(linked) and not all(linked):
            self.mixed.append(name)
        elif settings.table and all(linked):
            self._volumes += volumes.rows(spacing=spacing, depth=depth, unit=unit or "px")
        self.done += [result.label for result in members]
        indices = {result.plane.index for result in members}
        lacking = (i for i in np.ndindex(*members[0].plane.stack_shape) if i not in indices)
        self.blank += [replace(members[0].plane, index=i).label for i in lacking]

    def _is_linked(self, result: StoredResult) -> bool:
        """Whether it is of a stack, in all planes of which a number is one object."""
        made = self.results.provenance.get(result.label)
        return bool(result.plane.stack_shape) and made is not None and made.is_linked

    def _plane(
        self,
        result: StoredResult,
        image: LabelObjects,
        spacing: tuple[float, float],
        unit: str,
    ) -> None:
        settings, stem = self.settings, stem_of_plane(result.plane)
        self.objects += sum(1 for _ in image.cutouts())
        if settings.png:
            write_label_png(self._path("png", stem), image.labels, overwrite=self.overwrite)
        if settings.geojson:
            path = self._path("geojson", stem)
            write_json(path, geojson_tree(image), overwrite=self.overwrite)
        if settings.coco:
            self._coco.add(image)
        if settings.table:
            pixels = self._pixels(result, image)
            self._rows += measurements(image, spacing=spacing, unit=unit or "px", pixels=pixels)

    def _pixels(self, result: StoredResult, image: LabelObjects) -> NDArray[Any] | None:
        """The image as its file has it; None, and noted, if it is not there or another now."""
        plane, _ = source_plane(result, self.results, self._images)
        pixels = None if plane is None else plane.read()
        if pixels is None or pixels.shape[:2] != image.labels.shape:
            self.dark.append(result.label)
            return None
        return pixels

    def finish(self) -> None:
        """Write what is of all images."""
        if self.settings.coco:
            write_json(self._path("coco"), self._coco.tree(), overwrite=self.overwrite)
        if self.settings.table:
            path = self._path("table")
            columns = table_columns(self._rows)
            write_csv(path, self._rows, columns=columns, overwrite=self.overwrite)
            if self._volumes:
                self.files.append(VOLUMES)
                write_csv(
                    self.folder / VOLUMES, self._volumes, columns=VOLUME_COLUMNS,
                    overwrite=self.overwrite,
                )  # fmt: skip
        if self.settings.prompt_file and self.results.stored is not None:
            path = self._path("prompt_file")
            save_prompts(path, _exported_prompts(self.results), overwrite=self.overwrite)

    def others(self) -> list[str]:
        """Files that are called as those of an export and are not of this one."""
        mine = {folded(name) for name in self.files}
        names = sorted((path.name for path in self.folder.iterdir()), key=natural_key)
        endings = tuple(ending for scope, ending in FORMATS.values() if scope != "all")
        of_all = [VOLUMES, *(ending for scope, ending in FORMATS.values() if scope == "all")]
        return [
            name
            for name in names
            if folded(name) not in mine
            and name[0] != "."
            and (name in of_all or name.lower().endswith(endings))
        ]

    def _pixel_size(self, result: StoredResult) -> tuple[tuple[float, float], str, float | None]:
        """As it was given, else as the image's file tells it: height and width, unit, and depth."""
        settings = self.settings
        size = pixel_size(Path(result.image_file)) if result.image_file else None
        if size is not None and not settings.has_pixel_size:
            return (size.height_um, size.width_um), "micrometer", size.depth_um
        given = PixelSize.of(settings.pixel_height, settings.pixel_width, settings.unit)
        is_same = size is not None and given == replace(size, depth_um=None)
        depth = size.depth_um if size is not None and is_same else None
        if depth is not None:
            depth /= MICROMETERS[settings.unit]
        return (settings.pixel_height, settings.pixel_width), settings.unit, depth

    def _path(self, setting: str, stem: str = "", *, on: bool = True) -> Path:
        name = stem + FORMATS[setting][1]
        self.files += [name] * on
        return self.folder / name


def _exported_prompts(results: StoredResults) -> PromptFile:
    """The prompts of the images that have labels, without the time: a replay takes another."""
    if results.stored is None:
        raise InputError(f"{results.folder}: has no prompts.json.")
    names = {result.label for result in results.images}
    stored = results.stored
    images = tuple(replace(i, seconds=None) for i in stored.images if i.name in names)
    return PromptFile(images, stored.model, stored.normalization, dict(results.classes))
