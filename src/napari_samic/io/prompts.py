"""The prompt file (SAMBOX format): what the user clicked, image by image, as versioned JSON.

Described by docs/prompts.schema.json; `prompts_schema.py` says the same in Python. Rows and columns
are named in the file, so that it can't be read the wrong way round. Knows no model and no window.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_samic.core.errors import FormatError, OutputError, PromptError
from napari_samic.core.types import CroppedMask, Prompts
from napari_samic.io.files import atomic_file
from napari_samic.io.outlines import packed, unpacked
from napari_samic.io.prompts_schema import BOX_KEYS, FORMAT, VERSION, check_format, faults_of
from napari_samic.io.text_files import first_of, read_json

_PEEK_BYTES = 4096


@dataclass(frozen=True, eq=False)
class ImagePrompts:
    """The annotated objects of one image.

    Attributes
    ----------
    name : str
        `ImagePlane.label`, unique within the file.
    file : str
        Where the image was; "" if it had no file.
    shape : (H, W)
        Of the original image.
    sha256 : str
        Of its pixels, 64 hexadecimal digits; "" if not known.
    objects : tuple of Prompts
    scores : tuple of float
        The segmenter's confidence in each object; SAM's may exceed 1.
    clicks : int or None
        Clicks that the image took; None if not counted.
    seconds : float or None
        Time that it took; None if not measured.
    masks : tuple of CroppedMask or None
        Mask of each object, if that was drawn; else the segmenter answers its prompts. () if none
        was drawn.
    """

    name: str
    file: str
    shape: tuple[int, int]
    sha256: str
    objects: tuple[Prompts, ...]
    scores: tuple[float, ...]
    clicks: int | None = None
    seconds: float | None = None
    masks: tuple[CroppedMask | None, ...] = ()

    def mask(self, i: int) -> CroppedMask | None:
        """Mask of an object, if that was drawn."""
        return self.masks[i] if self.masks else None


@dataclass(frozen=True, eq=False)
class PromptFile:
    """All that a prompt file holds.

    Attributes
    ----------
    images : tuple of ImagePrompts
    model : str
        Name of the segmenter that the prompts were made with.
    normalization : dict or None
        How pixels became RGB, as plain values.
    classes : dict of int to str
        Name of each class, from 1.
    """

    images: tuple[ImagePrompts, ...]
    model: str = ""
    normalization: dict[str, Any] | None = None
    classes: dict[int, str] = field(default_factory=dict)


def save_prompts(path: str | Path, data: PromptFile, overwrite: bool = False) -> None:
    """Write a prompt file; it is either complete or not there.

    Parameters
    ----------
    path : str or Path
    data : PromptFile
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    OutputError
        A file in the way, or a place that can't be written to.
    FormatError, PromptError
        Data that `load_prompts` would refuse; nothing is written.
    """
    target = Path(path)
    with atomic_file(target, overwrite=overwrite) as temporary:
        try:
            tree = to_tree(data)
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(tree, file, indent=1, allow_nan=False)  # in pieces: it may be long
                file.write("\n")
        except (TypeError, ValueError, AttributeError) as error:
            msg = f"{target}: can't be written as JSON: {error}. Give plain finite values."
            raise OutputError(msg) from error
        _check(tree, target.name)
        _check_inside(data.images, target.name)


def load_prompts(path: str | Path) -> PromptFile:
    """Read a prompt file, or say all that is wrong with it.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    PromptFile

    Raises
    ------
    InputError
        No such file, or no permission to read it.
    FormatError
        Not JSON, another kind or version of file, or faulty; every fault is named with its place.
    PromptError
        A point or box outside its image; every such object is named.
    """
    source = Path(path)
    return parsed(read_json(source, "a prompt file"), source.name)


def holds_prompts(path: Path) -> bool:
    """Whether the file's first bytes name our format."""
    try:
        with path.open("rb") as file:
            start = file.read(_PEEK_BYTES).decode("utf-8-sig", errors="replace")
    except OSError:
        return False
    return json.dumps(FORMAT) in start and start.lstrip().startswith("{")


def to_tree(data: PromptFile) -> dict[str, Any]:
    """As JSON holds it."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": data.model,
        "normalisation": data.normalization,
        "classes": {str(label): name for label, name in data.classes.items()},
        "images": [_image_tree(image) for image in data.images],
    }


def _image_tree(image: ImagePrompts) -> dict[str, Any]:
    if len(image.scores) != len(image.objects):
        msg = f"{image.name}: {len(image.scores)} scores for {len(image.objects)} objects"
        raise ValueError(msg)
    masks = image.masks or (None,) * len(image.objects)
    rows = zip(image.objects, image.scores, masks, strict=True)
    return {
        "name": image.name,
        "file": image.file,
        "shape": {"rows": int(image.shape[0]), "columns": int(image.shape[1])},
        "sha256": image.sha256,
        "clicks": None if image.clicks is None else int(image.clicks),
        "seconds": None if image.seconds is None else float(image.seconds),
        "objects": [_object_tree(prompts, float(score), mask) for prompts, score, mask in rows],
    }


def _object_tree(prompts: Prompts, score: float, mask: CroppedMask | None) -> dict[str, Any]:
    pairs = zip(prompts.points_rc.tolist(), prompts.is_foreground.tolist(), strict=True)
    box = prompts.box_rc
    return {
        "class": int(prompts.label),
        "score": score,
        "points": [{"row": r, "column": c, "foreground": sign} for (r, c), sign in pairs],
        "box": None if box is None else dict(zip(BOX_KEYS, box.tolist(), strict=True)),
    } | ({} if mask is None else {"mask": packed(mask)})


def parsed(tree: Any, where: str) -> PromptFile:
    """The content of a prompt file once it is known to be sound.

    Parameters
    ----------
    tree : object
        Of its JSON.
    where : str
        Opens each message.

    Raises
    ------
    FormatError, PromptError
        As `load_prompts`.
    """
    _check(tree, where)
    images = tuple(_image(image, where) for image in tree["images"])
    _check_inside(images, where)
    classes = {int(label): name for label, name in tree["classes"].items()}
    return PromptFile(images, tree["model"], tree["normalisation"], classes)


def _check(tree: Any, where: str) -> None:
    if fault := check_format(tree):
        raise FormatError(f"{where}: {fault}")
    if faults := first_of(faults_of(tree)):
        raise FormatError(f"{where}: {faults}. Mend these places or save it again.")


def _image(tree: dict[str, Any], where: str) -> ImagePrompts:
    clicks, seconds = tree.get("clicks"), tree.get("seconds")
    shape = int(tree["shape"]["rows"]), int(tree["shape"]["columns"])
    masks = _masks(tree, shape, where)
    return ImagePrompts(
        name=tree["name"],
        file=tree["file"],
        shape=shape,
        sha256=tree["sha256"],
        objects=tuple(_prompts(entry) for entry in tree["objects"]),
        scores=tuple(float(entry["score"]) for entry in tree["objects"]),
        clicks=None if clicks is None else int(clicks),
        seconds=None if seconds is None else float(seconds),
        masks=masks if any(masks) else (),
    )


def _masks(
    tree: dict[str, Any], shape: tuple[int, int], where: str
) -> tuple[CroppedMask | None, ...]:
    out: list[CroppedMask | None] = []
    for j, entry in enumerate(tree["objects"]):
        text = entry.get("mask", "")
        try:
            out.append(unpacked(text, shape) if text else None)
        except FormatError as error:
            raise FormatError(f"{where}: {tree['name']}, objects[{j}].mask: {error}") from error
    return tuple(out)


def _prompts(tree: dict[str, Any]) -> Prompts:
    points = [(point["row"], point["column"]) for point in tree["points"]]
    signs = np.array([point["foreground"] for point in tree["points"]], dtype=bool)
    corners = tree.get("box")
    box = None if corners is None else np.array([corners[k] for k in BOX_KEYS], dtype=np.float64)
    return Prompts(np.array(points, dtype=np.float64), signs, box, int(tree["class"]))


def _check_inside(images: tuple[ImagePrompts, ...], where: str) -> None:
    faults = []
    for image in images:
        for j, prompts in enumerate(image.objects):
            try:
                prompts.check_inside(image.shape, f"{image.name}, objects[{j}]")
            except PromptError as error:
                faults.append(str(error))
    if faults:
        raise PromptError(f"{where}: {first_of(faults, ' ')}")
