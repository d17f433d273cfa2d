"""Results to the files that others read: TIFF, PNG, OME-Zarr, COCO, GeoJSON, tables, prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_samic.core.errors import InputError, OutputError
from napari_samic.core.label_objects import LabelObjects
from napari_samic.core.settings import ExportSettings
from napari_samic.core.types import ImagePlane, Job, JobProgress
from napari_samic.export import ome_zarr
from napari_samic.export.coco import CocoTree
from napari_samic.export.geojson import geojson_tree
from napari_samic.export.label_png import check_numbers, write_label_png
from napari_samic.export.ome_zarr import write_ome_zarr
from napari_samic.export.regionprops import measurements, table_columns
from napari_samic.io import files
from napari_samic.io.images import pixel_size
from napari_samic.io.paths import check_stems, folded, natural_key, some
from napari_samic.io.prompts import PromptFile, save_prompts
from napari_samic.io.writers import write_csv, write_json
from napari_samic.pipeline import common
from napari_samic.pipeline.results.journal import complete_results
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

FORMATS = {
    "tiff": ("stack", ".tif"),
    "png": ("plane", ".png"),
    "ome_zarr": ("stack", ".ome.zarr"),
    "coco": ("all", "coco.json"),
    "geojson": ("plane", ".geojson"),
    "table": ("all", "measurements.csv"),
    "prompt_file": ("all", "prompts.json"),
}
"""By setting: what has a file of its own, and how that ends; of all images, its whole name."""


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
    stored_results = read_results(results, classes=names)
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
    if writing.dark:
        what = "no intensities, as the image is not where it was, or another"
        notices = (*notices, f"{what}: {some(writing.dark)}.")
    if overwrite and (others := writing.others()):
        notice = f"not of this export, as of an earlier one, left where they are: {some(others)}."
        notices = (*notices, notice)
    figures = {"objects": writing.objects, "files": sorted(writing.files)}
    return common.JobResult(folder, tuple(writing.done), (), {}, figures, notices=notices)


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
        self._images: dict[Path, dict[str, ImagePlane]] = {}
        self._rows: list[dict[str, Any]] = []
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
        planes: list[LabelObjects] = []
        with LabelFileWriter(
            self._path("tiff", name, on=settings.tiff), overwrite=self.overwrite
        ) as labels:
            for result in members:
                image = result.label_objects()
                if settings.tiff:
                    labels.write(result.plane, image.labels)
                self._plane(result, image, spacing, unit)
                planes += [image] * settings.ome_zarr
        if settings.ome_zarr:
            write_ome_zarr(
                self._path("ome_zarr", name), planes, members[0].plane.stack_shape,
                spacing=spacing, unit=unit, depth=depth, overwrite=self.overwrite,
            )  # fmt: skip
        self.done += [result.label for result in members]

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
        if self.settings.prompt_file and self.results.stored is not None:
            path = self._path("prompt_file")
            save_prompts(path, _exported_prompts(self.results), overwrite=self.overwrite)

    def others(self) -> list[str]:
        """Files that are called as those of an export and are not of this one."""
        mine = {folded(name) for name in self.files}
        names = sorted((path.name for path in self.folder.iterdir()), key=natural_key)
        endings = tuple(ending for scope, ending in FORMATS.values() if scope != "all")
        of_all = [ending for scope, ending in FORMATS.values() if scope == "all"]
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
        if not settings.has_pixel_size and result.image_file:
            size = pixel_size(Path(result.image_file))
            if size is not None:
                return (size.height_um, size.width_um), "micrometer", size.depth_um
        return (settings.pixel_height, settings.pixel_width), settings.unit, None

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
