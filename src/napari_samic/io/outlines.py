"""Outlines of objects in other tools' files to masks: COCO JSON and GeoJSON.

Polygons, and run lengths as a list or as a packed text; and what a file says of each image. Nothing
is read from a tree before it is known to be what the format says. NumPy only: knows no image file.

Source: the COCO data format, https://cocodataset.org/#format-data, and RFC 7946 in pixels, as
QuPath writes it. Coordinates are x, y from the image's upper left corner, so that the first pixel
spans 0 to 1 and its center is at 0.5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import FormatError, InputError
from napari_samic.core.types import BoolArray, CroppedMask, IntArray
from napari_samic.io.paths import folded, stem_of
from napari_samic.io.text_files import read_json

SUFFIXES = (".json", ".geojson")
"""Endings of files that hold outlines."""
UNNAMED = "object"
"""Class of what a file gives none."""
_WHAT = "a COCO or GeoJSON file of outlines"


def polygon(outline_xy: Sequence[float], shape: tuple[int, int]) -> BoolArray:
    """Pixels whose center is inside a polygon, by the even-odd rule.

    Parameters
    ----------
    outline_xy : (2 * N,) float
        x, y, x, y ...; the last corner is joined to the first.
    shape : tuple of int
        Height and width.

    Returns
    -------
    (H, W) bool

    Raises
    ------
    FormatError
        An odd count of numbers, or fewer than three corners.

    Notes
    -----
    pycocotools rounds the outline on a finer grid first, so single pixels of the rim may differ.

    Examples
    --------
    >>> polygon([1, 0, 3, 0, 3, 1, 1, 1], (2, 4)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    if len(outline_xy) < 6 or len(outline_xy) % 2:
        msg = f"a polygon of {len(outline_xy)} numbers, expected x and y of three corners or more."
        raise FormatError(f"{msg} The file is damaged.")
    height, width = shape
    x0, y0 = np.asarray(outline_xy, np.float64).reshape(-1, 2, 1).transpose(1, 0, 2)  # (E, 1) each
    x1, y1 = np.roll(x0, -1, axis=0), np.roll(y0, -1, axis=0)
    centers = np.arange(height) + 0.5  # (H,)
    edges, rows = np.nonzero((y0 <= centers) != (y1 <= centers))
    rise = (centers[rows] - y0[edges, 0]) / (y1 - y0)[edges, 0]
    crossing_x = x0[edges, 0] + rise * (x1 - x0)[edges, 0]
    columns = np.clip(np.ceil(crossing_x - 0.5), 0, width).astype(int)
    turns = np.zeros((height, width + 1), np.int64)
    np.add.at(turns, (rows, columns), 1)
    return np.asarray(np.cumsum(turns, axis=1)[:, :width] % 2 == 1)


def runs(packed: str) -> list[int]:
    """Run lengths of COCO's packed text: six bits a letter, from the third on as differences.

    Raises
    ------
    FormatError
        A text that ends within a number, or that is no such text.

    Examples
    --------
    >>> runs("13")
    [1, 3]
    """
    out: list[int] = []
    value = shift = 0
    for letter in packed:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise FormatError(f"run lengths with the letter {letter!r}. The file is damaged.")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        out.append(value + out[-2] if len(out) > 2 else value)
        value = shift = 0
    if shift:
        raise FormatError("run lengths that end within a number. The file is damaged.")
    return out


def mask_of(segmentation: Any, shape: tuple[int, int]) -> BoolArray:
    """Mask of one annotation: polygons, which are joined, or run lengths.

    Parameters
    ----------
    segmentation : list of list of float, or dict with "counts" and "size"
    shape : tuple of int
        Height and width of the image.

    Returns
    -------
    (H, W) bool

    Raises
    ------
    FormatError
        Neither of these, or of another size.
    """
    if isinstance(segmentation, Mapping):
        counts = segmentation.get("counts", [])
        size = tuple(segmentation.get("size", ()))
        if size != tuple(shape):
            raise FormatError(f"run lengths for {size}, expected {shape}. The file is damaged.")
        return decode({"counts": runs(counts) if isinstance(counts, str) else counts, "size": size})
    if not isinstance(segmentation, list):
        kind = type(segmentation).__name__
        raise FormatError(f"a segmentation that is a {kind}, expected polygons or run lengths.")
    out = np.zeros(shape, bool)
    for outline in segmentation:
        out |= polygon(outline, shape)
    return out


def objects_of(segmentations: Sequence[Any], shape: tuple[int, int]) -> IntArray:
    """Number the objects from 1, (H, W) int32; a later one lies over those before it."""
    out = np.zeros(shape, np.int32)
    for number, segmentation in enumerate(segmentations, 1):
        out[mask_of(segmentation, shape)] = number
    return out


def rle(mask: NDArray[Any]) -> dict[str, Any]:
    """Encode a mask, (H, W), as COCO's uncompressed RLE.

    >>> rle(np.array([[0, 1], [1, 1]], bool))
    {'counts': [1, 3], 'size': [2, 2]}
    """
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    if flat.size and flat[0]:
        counts.insert(0, 0)
    return {"counts": counts, "size": [int(n) for n in mask.shape]}


def decode(segmentation: Mapping[str, Any]) -> BoolArray:
    """The mask of an uncompressed RLE, (H, W).

    Raises
    ------
    FormatError
        Runs that do not fill the image.
    """
    height, width = segmentation["size"]
    counts = segmentation["counts"]
    if isinstance(counts, str):
        raise FormatError("compressed RLE, expected a list of runs. Decode it with pycocotools.")
    if sum(counts) != height * width:
        msg = f"runs for {sum(counts)} pixels, expected {height * width}. The file is damaged."
        raise FormatError(msg)
    values = np.arange(len(counts)) % 2 == 1
    return np.asarray(np.repeat(values, counts).reshape((height, width), order="F"))


def packed(mask: CroppedMask) -> str:
    """COCO's packed text of a mask.

    Examples
    --------
    >>> packed(CroppedMask((1, 3), (0, 1), np.ones((1, 1), bool)))
    '111'
    """
    if mask not in _packed:
        _packed[mask] = "".join(_letters(value) for value in _differences(mask))
    return _packed[mask]


_packed: WeakKeyDictionary[CroppedMask, str] = WeakKeyDictionary()
"""Texts of the masks that are there: prompts are saved again with each click."""


def _differences(mask: CroppedMask) -> list[int]:
    """Run lengths, column by column, the ground first; from the third on less the last but one."""
    rows, corner = mask.shape[0], mask.corner
    column, row = np.nonzero(mask.inside.T)
    places = (column + corner[1]) * rows + row + corner[0]  # (N,)
    gaps = np.flatnonzero(np.diff(places) > 1)
    begins = places[np.concatenate([[0], gaps + 1])] if len(places) else places
    ends = places[np.concatenate([gaps, [-1]])] + 1 if len(places) else places
    edges = np.stack([begins, ends], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], edges, [rows * mask.shape[1]]]))
    counts = counts[: len(counts) - int(counts[-1] == 0)]
    out = counts.copy()
    out[3:] -= counts[1:-2]
    return [int(value) for value in out]


def _letters(value: int) -> str:
    """A number in letters of six bits, the lowest first; the sixth says that more follow."""
    out = ""
    while True:
        bits, value = value & 31, value >> 5
        if value == (-1 if bits & 16 else 0):
            return out + chr(bits + 48)
        out += chr((bits | 32) + 48)


def unpacked(text: str, shape: tuple[int, int]) -> CroppedMask:
    """The mask of a packed text, in an image of `shape`.

    Raises
    ------
    FormatError
        As `runs`, or runs that do not fill the image.
    """
    counts = np.array(runs(text), np.int64)
    edges = np.cumsum(counts)
    if (counts < 0).any() or not len(edges) or edges[-1] != shape[0] * shape[1]:
        msg = f"runs for {edges[-1] if len(edges) else 0} pixels, expected {shape[0] * shape[1]}."
        raise FormatError(f"{msg} The file is damaged.")
    begins = edges[:-1:2]
    if not len(begins):
        return CroppedMask.of(np.zeros(shape, bool))
    last = edges[1::2][-1]
    first = begins[0] // shape[0], -(-last // shape[0])  # the columns that it lies in
    values = np.arange(len(counts)) % 2 == 1
    low, high = first[0] * shape[0], first[1] * shape[0]
    within = np.diff(np.concatenate([[low], np.clip(edges, low, high)]))
    band = np.repeat(values, within).reshape((shape[0], -1), order="F")
    cut = CroppedMask.of(band)
    return CroppedMask(shape, (cut.corner[0], cut.corner[1] + int(first[0])), cut.inside)


# --- files of outlines


@dataclass(frozen=True, eq=False)
class OutlinedObject:
    """One object of a file.

    Attributes
    ----------
    place : str
        In the file, for messages.
    class_name : str
    parts : sequence of sequence of (2 * N,) float
        Of each part the outer ring and the holes, x, y, x, y ...
    run_lengths : dict or None
        COCO's, instead of parts.
    """

    place: str
    class_name: str
    parts: Sequence[Sequence[Any]] = ()
    run_lengths: Mapping[str, Any] | None = None

    def mask(self, shape: tuple[int, int]) -> CroppedMask:
        """The object in an image of `shape`."""
        if self.run_lengths is not None:
            return CroppedMask.of(mask_of(self.run_lengths, shape))
        rings = [[_numbers(ring) for ring in part] for part in self.parts]
        flat = [ring for part in rings for ring in part] or [np.zeros(2)]
        corners = np.concatenate(flat).reshape(-1, 2)
        limits = shape[1], shape[0]
        low = np.clip(np.floor(corners.min(0)), 0, limits).astype(int)  # x, y
        high = np.clip(np.ceil(corners.max(0)), 0, limits).astype(int)
        size = (int(high[1] - low[1]), int(high[0] - low[0]))
        inside = np.zeros(size, bool)
        for part in rings:
            covered = np.zeros(size, bool)
            for ring in part:
                covered ^= polygon((ring.reshape(-1, 2) - low).ravel().tolist(), size)
            inside |= covered
        return CroppedMask(shape, (int(low[1]), int(low[0])), inside)


@dataclass(frozen=True, eq=False)
class ImageOutlines:
    """The objects of one image.

    Attributes
    ----------
    where : str
        File and image, for messages.
    objects : tuple of OutlinedObject
    shape : (H, W) or None
        Of the image, if the file says so.
    """

    where: str
    objects: tuple[OutlinedObject, ...]
    shape: tuple[int, int] | None = None

    def labels(self, shape: tuple[int, int]) -> IntArray:
        """Number the objects from 1, (H, W) int32; where two overlap, the smaller lies on top.

        Raises
        ------
        InputError
            The image has another size, or an object has no pixel in it.
        FormatError
            Numbers that are no outline.
        """
        if self.shape is not None and self.shape != shape:
            msg = (
                f"{self.where}: outlines for {self.shape} pixels, the image has {shape}. "
                "Export them for the image at this size."
            )
            raise InputError(msg)
        masks = []
        for number, item in enumerate(self.objects, start=1):
            try:
                mask = item.mask(shape)
            except FormatError as error:
                raise FormatError(f"{self.where}, {item.place}: {error}") from error
            if not mask.area_px:
                msg = (
                    f"{self.where}, {item.place}: no pixel of it is in the image of {shape}. "
                    "Export outlines in pixels of this very image."
                )
                raise InputError(msg)
            masks.append((mask.area_px, number, mask))
        out = np.zeros(shape, np.int32)
        for _, number, mask in sorted(masks, key=lambda row: (-row[0], row[1])):
            mask.paint(out, number)
        return out


@dataclass(frozen=True, eq=False)
class OutlineFile:
    """What a file holds.

    Attributes
    ----------
    images : dict of str to ImageOutlines
        By the image's name, `folded`.
    class_numbers : dict of str to int
        By name, where the file numbers its classes.
    """

    images: Mapping[str, ImageOutlines]
    class_numbers: Mapping[str, int]


def read_outlines(path: Path) -> OutlineFile:
    """Read a COCO file of instances, or the GeoJSON file of one image.

    Raises
    ------
    InputError
        It can't be read.
    FormatError
        Neither of these, or damaged: the place is named.
    """
    tree = read_json(path, _WHAT, dense=True)
    is_coco = isinstance(tree, dict) and "images" in tree and "annotations" in tree
    features = tree if isinstance(tree, list) else None
    if isinstance(tree, dict):
        features = [tree] if tree.get("type") == "Feature" else tree.get("features")
    if not is_coco and not isinstance(features, list):
        raise FormatError(f"{path.name}: neither COCO nor GeoJSON. Pick {_WHAT}.")
    try:
        return _coco(tree, path) if is_coco else _geojson(tree, features or [], path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, FormatError | InputError):
            raise
        what = f"{error!r}" if isinstance(error, KeyError) else str(error)
        raise FormatError(f"{path.name}: damaged or cut off ({what}). Export it again.") from error


def numbers_of_classes(files: Iterable[OutlineFile]) -> dict[str, int]:
    """A number from 1 for each class of a set of files.

    It is that of the files where all agree; else classes are numbered in the order of their names.
    """
    opened = list(files)
    used = {o.class_name for f in opened for image in f.images.values() for o in image.objects}
    pairs = {pair for f in opened for pair in f.class_numbers.items() if pair[0] in used}
    numbers = dict(pairs)
    is_known = set(numbers) == used and min(numbers.values(), default=1) >= 1
    if is_known and len(pairs) == len(numbers) == len(set(numbers.values())):
        return dict(sorted(numbers.items(), key=lambda pair: pair[1]))
    return {name: n for n, name in enumerate(sorted(used), start=1)}


def _coco(tree: Mapping[str, Any], path: Path) -> OutlineFile:
    names = {c["id"]: str(c["name"]) for c in tree.get("categories", ())}
    objects: dict[Any, list[OutlinedObject]] = {image["id"]: [] for image in tree["images"]}
    for i, note in enumerate(tree["annotations"]):
        place, stored = f"annotations[{i}]", note.get("segmentation")
        if note["image_id"] not in objects:
            raise FormatError(f"{path.name}, {place}: of image {note['image_id']!r}, not listed.")
        if not stored:
            msg = f"{path.name}, {place}: no outline. Export masks or polygons, not boxes alone."
            raise FormatError(msg)
        class_name = names.get(note.get("category_id"), UNNAMED)
        runs_ = stored if isinstance(stored, Mapping) else None
        parts = [] if runs_ else [[ring] for ring in stored]
        objects[note["image_id"]].append(OutlinedObject(place, class_name, parts, runs_))
    images: dict[str, ImageOutlines] = {}
    for image in tree["images"]:
        name = str(image.get("name") or stem_of(Path(re.split(r"[\\/]", image["file_name"])[-1])))
        if folded(name) in images:
            msg = f"{path.name}: two images are called '{name}'. Give their outlines in two files."
            raise FormatError(msg)
        shape = int(image["height"]), int(image["width"])
        images[folded(name)] = ImageOutlines(
            f"{path.name}, image {name}", tuple(objects[image["id"]]), shape
        )
    return OutlineFile(images, {name: int(number) for number, name in names.items()})


def _geojson(tree: Any, features: Sequence[Any], path: Path) -> OutlineFile:
    about = tree if isinstance(tree, dict) else {}
    size, numbers, objects = about.get("image"), {}, []
    shape = (int(size["height"]), int(size["width"])) if isinstance(size, dict) else None
    for i, feature in enumerate(features):
        place, facts = f"features[{i}]", feature.get("properties") or {}
        quality = facts.get("classification") or {}  # QuPath's
        name = str(facts.get("class_name") or quality.get("name") or UNNAMED)
        if "class" in facts:
            numbers[name] = int(facts["class"])
        parts = list(_parts(feature["geometry"], f"{path.name}, {place}"))
        objects.append(OutlinedObject(place, name, parts))
    name = str(about["name"]) if shape is not None and about.get("name") else _stem(path)
    return OutlineFile({folded(name): ImageOutlines(path.name, tuple(objects), shape)}, numbers)


def _stem(path: Path) -> str:
    """Name of the image of a GeoJSON file, as slide.ome.tif.geojson has it, too."""
    return stem_of(Path(path.stem))


def _parts(geometry: Mapping[str, Any], where: str) -> Iterator[list[Any]]:
    """Rings of each polygon, flat."""
    kind, listed = geometry["type"], geometry.get("coordinates", [])
    if kind not in ("Polygon", "MultiPolygon"):
        msg = f"{where}: a {kind}, expected a Polygon or MultiPolygon. Export polygons alone."
        raise FormatError(msg)
    for rings in [listed] if kind == "Polygon" else listed:
        yield [np.asarray(ring, np.float64)[:, :2].ravel() for ring in rings]


def _numbers(ring: Any) -> NDArray[np.float64]:
    """A ring as an even count of finite numbers."""
    try:
        values = np.asarray(ring, np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise FormatError("a polygon that is no list of numbers. The file is damaged.") from error
    if len(values) % 2 or not np.isfinite(values).all():
        raise FormatError(
            f"a polygon of {len(values)} numbers, expected finite x and y in turn. "
            "The file is damaged."
        )
    return values
