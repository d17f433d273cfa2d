"""What the use cases share: opening, keeping records, writing labels plane by plane."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_samic import atomic, export, pictures
from napari_samic.cache import ArrayCache
from napari_samic.contracts import Image, IntArray, Plane, Prompts, Segmentation
from napari_samic.errors import InputError, OutputError, PromptError, SamicError
from napari_samic.normalise import Normalisation, fit_normalisation
from napari_samic.prompts import ImagePrompts, PromptFile, load_prompts, save_prompts

SHEET_TILES = 24


@dataclass(frozen=True)
class Outcome:
    """What a use case left behind.

    Attributes
    ----------
    out : Path
        Folder or file that was written.
    done, skipped : tuple of str
        Images that were processed, and those that had been before.
    failures : dict of str to str
        Image and the line that says why.
    figures : dict
        Numbers worth telling.
    """

    out: Path
    done: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    failures: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)


def default_cache() -> ArrayCache:
    """Encoded images, in the user's cache folder."""
    return ArrayCache()


def pixels_sha256(image: Image) -> str:
    """Of the 8-bit RGB pixels that were annotated."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def groups(planes: Sequence[Plane]) -> Iterator[tuple[str, list[Plane]]]:
    """Planes by file: a stack's stay together."""
    by_name: dict[str, list[Plane]] = {}
    for plane in planes:
        by_name.setdefault(plane.name, []).append(plane)
    yield from by_name.items()


def make_folder(path: Path | str) -> Path:
    """Make the output folder, and check that it can be written to.

    Raises
    ------
    OutputError
        A file is in the way, or the disk refuses.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic.atomic_file(folder / ".napari-samic-probe", overwrite=True) as probe:
            probe.write_bytes(b"")
        (folder / ".napari-samic-probe").unlink()
    except FileExistsError as error:
        raise OutputError(f"{folder}: is a file, expected a folder. Choose another.") from error
    except SamicError:
        raise
    except OSError as error:
        raise atomic.output_error(folder, error) from error
    return folder


class Labels:
    """Label files of one image or stack: written plane by plane, there only when complete.

    Use in a ``with`` block, one for each file.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self._path, self._overwrite = path, overwrite
        self._stack = ExitStack()
        self._writer: export.StackWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> bool | None:
        return self._stack.__exit__(*exception)

    def write(self, plane: Plane, labels: IntArray) -> None:
        """Put one plane."""
        if not plane.stack_shape:
            export.write_labels(self._path, labels, overwrite=self._overwrite)
            return
        if self._writer is None:
            height, width = labels.shape
            self._writer = self._stack.enter_context(
                export.StackWriter(
                    self._path, plane.stack_shape, (height, width), overwrite=self._overwrite
                )
            )
        self._writer.write(plane.index, labels)


class Records:
    """Prompts, scores and failures of a run, joined to those of earlier runs in the same folder.

    `save` is called at the end, and also when a run is cancelled: what is done is kept.
    """

    def __init__(self, out: Path, model: str, normalisation: Normalisation) -> None:
        self.out = out
        self.failures: dict[str, str] = {}
        self.model, self.normalisation = model, normalisation
        self._images: dict[str, ImagePrompts] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._read_earlier()

    def _read_earlier(self) -> None:
        if (self.out / "prompts.json").exists():
            for image in load_prompts(self.out / "prompts.json").images:
                self._images[image.name] = image
        if (self.out / "scores.csv").exists():
            with (self.out / "scores.csv").open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    self._rows.setdefault(row["image"], []).append(dict(row))

    def forget(self, names: Sequence[str]) -> None:
        """Drop earlier records of images that are made anew."""
        for name in names:
            self._images.pop(name, None)
            self._rows.pop(name, None)

    def add(
        self,
        plane: Plane,
        image: Image,
        result: Segmentation,
        *,
        extra: Sequence[dict[str, Any]] = (),
        clicks: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Note one finished plane; `extra` are further columns for each of its objects."""
        height, width = image.shape[:2]
        self._images[plane.label] = ImagePrompts(
            plane.label,
            str(plane.path or ""),
            (height, width),
            pixels_sha256(image),
            result.objects,
            tuple(float(s) for s in result.scores),
            clicks,
            seconds,
        )
        areas = np.bincount(result.labels.ravel(), minlength=len(result.scores) + 1)
        head = {"image": plane.label, "image_score": round(result.score, 4)}
        rows = [
            {
                **head,
                "object": i + 1,
                "score": round(float(score), 4),
                "area_px": int(areas[i + 1]),
                **(extra[i] if extra else {}),
            }
            for i, score in enumerate(result.scores)
        ]
        self._rows[plane.label] = rows or [{**head, "object": 0}]

    def fail(self, name: str, error: Exception) -> None:
        """Note an image that could not be done."""
        self.failures[name] = str(error)

    def save(self) -> None:
        """Write prompts.json, scores.csv, and failures.csv if there were any."""
        images = tuple(self._images[k] for k in sorted(self._images))
        content = PromptFile(images, self.model, self.normalisation.to_dict())
        save_prompts(self.out / "prompts.json", content, overwrite=True)
        rows = [row for name in sorted(self._rows) for row in self._rows[name]]
        export.write_csv(self.out / "scores.csv", rows, overwrite=True)
        target = self.out / "failures.csv"
        if self.failures:
            lost = [{"image": k, "reason": v} for k, v in self.failures.items()]
            export.write_csv(target, lost, overwrite=True)
        elif target.exists():
            target.unlink()


class Sheet:
    """Overlays for a contact sheet, at most `SHEET_TILES`, small as they come."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._tiles: list[Image] = []
        self._captions: list[str] = []

    def add(
        self,
        name: str,
        image: Image,
        labels: IntArray,
        objects: Sequence[Prompts],
        caption: str,
        truth: NDArray[Any] | None = None,
    ) -> None:
        """Draw one tile, if the sheet is wanted and has room."""
        if self._path is None or len(self._tiles) >= SHEET_TILES:
            return
        self._tiles.append(pictures.overlay(image, labels, points=objects, truth=truth))
        self._captions.append(f"{name}  {caption}")

    def save(self) -> None:
        """Write the sheet, if there is anything on it."""
        if self._path is not None and self._tiles:
            sheet = pictures.contact_sheet(self._tiles, self._captions, columns=6, tile_px=240)
            export.write_png(self._path, sheet, overwrite=True)


def check_channels(text: str | None) -> tuple[int, ...] | None:
    """Read a channel map such as "2,0,1".

    Raises
    ------
    InputError
        Not one to three whole numbers.
    """
    if text is None or not text.strip():
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        msg = f"channels {text!r}: expected one to three numbers from 0, as 2,0,1."
        raise InputError(msg) from error


def named(planes: list[Plane], stored: PromptFile) -> list[Plane]:
    """Planes that a prompt file names, in its order.

    Raises
    ------
    InputError
        Named ones that are not there.
    """
    by_label = {p.label: p for p in planes}
    missing = [i.name for i in stored.images if i.name not in by_label]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        msg = (
            f"no image for the prompts of {', '.join(missing[:5])}{more}. Give the folder in which "
            "they were annotated."
        )
        raise InputError(msg)
    if not stored.images:
        raise PromptError("the prompt file names no image. Annotate one first.")
    return [by_label[i.name] for i in stored.images]


def normalisation_of(
    planes: Sequence[Plane], stored: PromptFile | None, channels: Sequence[int] | None
) -> Normalisation:
    """The one the prompts were made with, or one fitted to these images."""
    if stored is not None and stored.normalisation and channels is None:
        return Normalisation.from_dict(stored.normalisation)
    return fit_normalisation(planes, channels=channels)


def check_same_image(entry: ImagePrompts, image: Image) -> None:
    """Raise InputError unless this is the image that was annotated."""
    if entry.shape != image.shape[:2]:
        msg = (
            f"{entry.name}: {image.shape[:2]} pixels, its prompts were made on {entry.shape}. "
            "Use the image that was annotated."
        )
        raise InputError(msg)
    if entry.sha256 and entry.sha256 != pixels_sha256(image):
        msg = (
            f"{entry.name}: other pixels than those that were annotated. Restore the image, or "
            "annotate it again."
        )
        raise InputError(msg)
