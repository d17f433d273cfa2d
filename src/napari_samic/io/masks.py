"""Label masks: reading them, what a set of them means, and the mask of each image by its name.

0 is background. What values mean is decided in `mask_values`. Masks may also be outlines, as COCO
JSON and GeoJSON have them. Knows no network and writes nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError, SamicError
from napari_samic.core.types import BoolArray, Image, ImagePlane, IntArray, Job, JobProgress
from napari_samic.io.images import OpenedFile, open_path, planes_of_file
from napari_samic.io.mask_values import (
    MaskValues,
    ValueCounts,
    describe,
    infer_meaning,
    inverted_warning,
    parse_mask_values,
)
from napari_samic.io.outlines import (
    SUFFIXES,
    UNNAMED,
    ImageOutlines,
    OutlineFile,
    numbers_of_classes,
    read_outlines,
)
from napari_samic.io.paths import (
    Listing,
    bare_stem,
    check_stems,
    folded,
    is_readable,
    list_source,
    look,
    no_files_line,
    some,
    stem_of,
)
from napari_samic.io.readers import (
    PILLOW_SUFFIXES,
    TIFF_SUFFIXES,
    apply_orientation,
    check_pixels,
    exif_orientation,
    open_pillow,
    read_pillow,
    reading,
)
from napari_samic.io.tiff import display_palette

_LEVELS = 16  # values of a mask, from which on they may be levels of gray
_LOSSY = (".jpg", ".jpeg")


def read_labels(source: str | Path | ImagePlane, *, values: MaskValues | None = None) -> IntArray:
    """Read a mask by itself: object or class numbers, or black and white.

    Black and white of 8 or 16 bits (0 and 255, 0 and 65535) becomes 0 and 1; of a palette image
    the numbers are read, not the colors, unless these are black and white. Masks of a set are read
    with `read_mask`.

    Parameters
    ----------
    source : str, Path or ImagePlane
        PNG, BMP, TIFF or OME-Zarr that holds one plane; or one plane of a stack.
    values : MaskValues, optional
        What the values of its set mean, if that was decided.

    Returns
    -------
    (H, W) int32

    Raises
    ------
    ImageReadError
        The file can't be read.
    InputError
        Colors, fractions, negative numbers, or a stack where one plane is expected.
    """
    plane = source if isinstance(source, ImagePlane) else _only_plane(Path(source))
    if values is not None:
        return _applied(plane, values)[0]
    path = plane.path
    has_palette = path is not None and path.suffix.lower() in PILLOW_SUFFIXES
    stored = _stored(plane, by_color=has_palette and _is_gray(path))
    white = _white(stored)
    if white and ((stored == 0) | (stored == white)).all():
        return np.asarray(stored == white, dtype=np.int32)
    return MaskValues().applied(stored, plane.label)[0]


def _only_plane(path: Path) -> ImagePlane:
    file = path if path.is_dir() else list_source(path)[0]
    planes = planes_of_file(file, palette_indices=True)
    if len(planes) != 1:
        msg = (
            f"{path.name}: a stack of {len(planes)} planes {planes[0].stack_shape}, expected one "
            "mask. Open it with open_images and read its planes."
        )
        raise InputError(msg)
    return planes[0]


def _stored(plane: ImagePlane, *, by_color: bool) -> NDArray[Any]:
    """Values of a mask, (H, W) whole numbers as they are in the file; white of 1 bit is 255."""
    path, name = plane.path, plane.label
    if path is not None and path.suffix.lower() in PILLOW_SUFFIXES:
        name = path.name
        pixels = check_pixels(read_pillow(path, palette_indices=True), name)
    else:
        pixels = plane.read()
    palette = _palette(path) if by_color else None
    flat = palette[..., 0][pixels] if palette is not None else _one_channel(pixels, name)
    _check_alpha(_alpha(path, pixels), flat, name)
    is_lossy = path is not None and path.suffix.lower() in _LOSSY and flat.dtype != np.bool_
    if is_lossy and not ((flat == 0) | (flat == 255)).all():
        msg = f"{name}: grey values in a JPEG mask, which blurs labels. Export it as PNG or TIFF."
        raise InputError(msg)
    return whole_numbers(flat, name)


def whole_numbers(flat: NDArray[Any], name: str) -> NDArray[Any]:
    """Values of a mask, (H, W), as whole numbers; white of 1 bit is 255.

    Raises
    ------
    InputError
        Fractions.
    """
    if flat.dtype == np.bool_:
        return np.asarray(flat, np.uint8) * np.uint8(255)
    if flat.dtype.kind != "f":
        return flat
    if (flat != np.rint(flat)).any():
        worst = flat[flat != np.rint(flat)][0]
        msg = f"{name}: value {worst:g} in a mask, expected whole numbers. Threshold it first."
        raise InputError(msg)
    return flat.astype(np.int64)


def _alpha(path: Path | None, pixels: NDArray[Any]) -> NDArray[Any] | None:
    """Opacity, (H, W), of an image that has it."""
    if path is None or path.suffix.lower() not in PILLOW_SUFFIXES:
        return pixels[..., 3] if pixels.ndim == 3 and pixels.shape[2] == 4 else None
    with reading(path.name), open_pillow(path) as image:
        if "A" not in image.getbands():
            return None
        return apply_orientation(np.array(image.getchannel("A")), exif_orientation(image))


def _check_alpha(alpha: NDArray[Any] | None, flat: NDArray[Any], name: str) -> None:
    """Raise InputError where the mask may be in the opacity: it varies, and not as the values."""
    if alpha is None or (alpha == alpha.flat[0]).all() or ((alpha > 0) == (flat > 0)).all():
        return
    msg = (
        f"{name}: a mask whose opacity varies, so that the objects may be in its alpha channel. "
        "Export label numbers, one grey channel without alpha."
    )
    raise InputError(msg)


def _white(values: NDArray[Any]) -> int:
    """The highest number of pixels of 8 or 16 bits; 0 of others."""
    return int(np.iinfo(values.dtype).max) if values.dtype in (np.uint8, np.uint16) else 0


def _palette(path: Path | None) -> Image | None:
    """Colors of a palette image, (N, 3) uint8; None of others."""
    if path is None or path.is_dir():
        return None
    if path.suffix.lower() in TIFF_SUFFIXES:
        return display_palette(path)[0]
    with reading(path.name), open_pillow(path) as image:
        return _all_colors(image.getpalette("RGB")) if image.mode == "P" else None


def _all_colors(listed: list[int] | None) -> Image:
    """A row for each number, also for those that the file leaves out."""
    colors = np.zeros((256, 3), np.uint8)
    given = np.array(listed or (), np.uint8).reshape(-1, 3)
    colors[: len(given)] = given
    return colors


def _is_gray(path: Path | None) -> bool:
    """Whether a palette image shows black, white and middle gray alone: these are the mask then.

    Colors, and many grays, tell objects apart, and the numbers behind them count; so they do of
    grays in reverse, which are how a viewer shows them (an inverting LUT).
    """
    palette = _palette(path)
    if palette is None or path is None or _is_reversed(palette):
        return False
    used = palette[_used(path)]
    grays = set(used[:, 0].tolist())
    is_plain = (used == used[:, :1]).all() and grays <= {0, 127, 128, 255}
    is_whole = {0, 255} <= grays or bool((palette == palette[:, :1]).all())
    return bool(is_plain and is_whole and len(grays) == len(used))


def _is_reversed(palette: Image) -> bool:
    return np.array_equal(palette, np.repeat(np.arange(255, -1, -1)[:, None], 3, axis=1))


def _used(path: Path) -> NDArray[Any]:
    """Numbers of a palette that its image uses, sorted."""
    return np.unique(np.concatenate([np.unique(p.read()) for p in _stored_planes(path)]))


def _stored_planes(path: Path) -> list[ImagePlane]:
    """Planes that read numbers of a palette, not colors."""
    if path.suffix.lower() in PILLOW_SUFFIXES:
        return [
            ImagePlane(
                stem_of(path), (), partial(read_pillow, path, palette_indices=True), path=path
            )
        ]
    return planes_of_file(path, palette_indices=True)


@dataclass(frozen=True)
class MaskValueMeaning:
    """What the values of a set of masks mean, and the line that says so."""

    values: MaskValues
    line: str


def meaning_of(paths: Iterable[Path], mask_values: str | None = None) -> Job[MaskValueMeaning]:
    """Look at every mask of a set and decide what its values mean, unless that is given; a job.

    Parameters
    ----------
    paths : iterable of Path
        Those that can't be read are passed over: they say so when they are asked for.
    mask_values : str, optional
        As `parse_mask_values` takes it.

    Raises
    ------
    InputError
        Values that could mean this or that, or a text that can't be read.
    """
    all_files = list(dict.fromkeys(paths))
    files = [path for path in all_files if not _has_outlines(path)]
    outlined = _OUTLINED if len(files) < len(all_files) else ""
    if not files and outlined:
        if mask_values:
            msg = f"{all_files[0].name}: outlines, which have no values. Leave --mask-values out."
            raise InputError(msg)
        return MaskValueMeaning(MaskValues(), outlined)
    grays: list[bool | None] = []
    for i, path in enumerate(files):
        grays.append(_safely_gray(path))
        yield JobProgress(i, 2 * len(files), f"looking at {path.name}", {"phase": "read"})
    by_color = True in grays and False not in grays
    all_counts: list[ValueCounts] = []
    for i, path in enumerate(files, start=len(files)):
        for counts in _value_counts(path, by_color=by_color):
            all_counts.append(counts)
            yield JobProgress(
                i, 2 * len(files), f"looking at the mask {counts.name}", {"phase": "read"}
            )
    values = parse_mask_values(mask_values) if mask_values else infer_meaning(all_counts)
    values = replace(values, by_color=by_color)
    doubt = "" if mask_values else inverted_warning(values, all_counts)
    return MaskValueMeaning(
        values, f"mask values: {describe(values, all_counts)}. {doubt} {outlined}".rstrip()
    )


_OUTLINED = "masks are outlines: each is an object, and of two that overlap the smaller is on top."


def _has_outlines(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def class_numbers(paths: Iterable[Path]) -> dict[str, int]:
    """A number for each class that the outlines of a set name; masks beside them are of "object".

    Raises
    ------
    InputError, FormatError
        As `read_outlines`.
    """
    files = list(dict.fromkeys(paths))
    numbers = numbers_of_classes(_outlines(path) for path in files if _has_outlines(path))
    if numbers and not all(map(_has_outlines, files)):
        numbers.setdefault(UNNAMED, 1 + max(numbers.values()))
    return numbers


def class_names(plane: ImagePlane, path: Path) -> tuple[str, ...]:
    """Class of each number in the mask of `plane`; () of a mask that is no outlines."""
    if not _has_outlines(path):
        return ()
    return tuple(item.class_name for item in _outlines_of(plane, path).objects)


def _outlines(path: Path) -> OutlineFile:
    """What a file of outlines holds; the planes of a set ask for it one after the other."""
    stat = path.stat()
    return _just_parsed(path, (stat.st_ino, stat.st_ctime_ns, stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=2)
def _just_parsed(path: Path, _stamp: tuple[int, ...]) -> OutlineFile:
    return read_outlines(path)


def _outlines_of(plane: ImagePlane, path: Path) -> ImageOutlines:
    images = _outlines(path).images
    return images.get(folded(plane.label)) or next(iter(images.values()))  # cells_mask.geojson


def _safely_gray(path: Path) -> bool | None:
    """As `_is_gray`; None without a palette."""
    with suppress(SamicError):
        return _is_gray(path) if _palette(path) is not None else None
    return None


def _value_counts(path: Path, *, by_color: bool) -> Iterator[ValueCounts]:
    with suppress(SamicError):
        is_inverted, black = _is_inverted(path), 0 if by_color else _black(path)
        for plane in planes_of_file(path, palette_indices=True):
            counts = count_values(_stored(plane, by_color=by_color), plane.label)
            yield replace(counts, is_inverted=is_inverted, black=black)


def count_values(values: NDArray[Any], name: str) -> ValueCounts:
    """What a mask of whole numbers, (H, W), holds by itself, whatever its file says."""
    white, inside = _white(values), values[values != 0]
    share = float((inside == white).mean()) if inside.size else 0.0
    distinct = frozenset(int(v) for v in np.unique(inside)) | (
        {0} if (values == 0).any() else set()
    )
    is_framed, is_soft = _is_framed(values), len(distinct) > _LEVELS and _is_soft(values)
    return ValueCounts(name, distinct, white, share, is_framed=is_framed, is_soft=is_soft)


def _is_framed(values: NDArray[Any]) -> bool:
    inside = values != 0
    edge = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    return bool(inside.mean() > 0.8 and edge.mean() > 0.95)


def _is_soft(values: NDArray[Any]) -> bool:
    """Whether many neighbors between ground and white differ; labels touch at edges alone."""
    between = (values != 0) & (values != _white(values))
    pairs = differing = 0
    for a, b, inside in (
        (values[1:], values[:-1], between[1:] & between[:-1]),
        (values[:, 1:], values[:, :-1], between[:, 1:] & between[:, :-1]),
    ):
        pairs += int(np.count_nonzero(inside))
        differing += int(np.count_nonzero(inside & (a != b)))
    return differing > 0.4 * pairs and pairs > _LEVELS


def _black(path: Path) -> int:
    """The number that a palette shows black, if it is used and number 0 has a color; else 0."""
    palette = _palette(path)
    if palette is None or not palette[0].any() or _is_reversed(palette):
        return 0
    return next((int(n) for n in _used(path) if not palette[n].any()), 0)


def _is_inverted(path: Path) -> bool:
    """Whether a file says that 0 is white."""
    if (palette := _palette(path)) is not None and _is_reversed(palette):
        return True
    return path.suffix.lower() in TIFF_SUFFIXES and display_palette(path)[1]


def _one_channel(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    if pixels.ndim == 2:
        return pixels
    colors = pixels[..., :3] if pixels.shape[2] in (3, 4) else pixels
    if (colors != colors[..., :1]).any():
        msg = (
            f"{name}: a mask of {pixels.shape[2]} different channels, expected one. "
            "Export label numbers, one grey channel."
        )
        raise InputError(msg)
    return colors[..., 0]


def read_mask(
    plane: ImagePlane,
    path: str | Path,
    *,
    shape: tuple[int, ...] | None = None,
    values: MaskValues | None = None,
) -> IntArray:
    """Read the mask that belongs to `plane`: of a stack, the plane at the same place.

    Parameters
    ----------
    path : str or Path
        From `match_by_stem`. The mask of a stack is a stack of the same shape.
    shape : tuple of int, optional
        (H, W, ...) of the image, which the mask must have too.
    values : MaskValues, optional
        What the values of its set mean; without, it is read by itself.

    Returns
    -------
    (H, W) int32
        Void is 0.

    Raises
    ------
    InputError
        A mask of another shape, or one that `read_labels` refuses, or a value without a meaning.
    """
    if _has_outlines(Path(path)):
        height, width = (shape or plane.read().shape)[:2]
        return _outlines_of(plane, Path(path)).labels((height, width))
    mask = _mask_at(plane, Path(path))
    labels = read_labels(mask, values=values)
    _check_shape(plane, Path(path), labels, shape)
    return labels


def read_truth(
    plane: ImagePlane,
    path: str | Path,
    *,
    shape: tuple[int, ...] | None = None,
    values: MaskValues,
) -> tuple[IntArray, BoolArray]:
    """As `read_mask`, with where it is void: (H, W) bool."""
    if _has_outlines(Path(path)):
        labels = read_mask(plane, path, shape=shape)
        return labels, np.zeros(labels.shape, bool)
    labels, void = _applied(_mask_at(plane, Path(path)), values)
    _check_shape(plane, Path(path), labels, shape)
    return labels, void


def _applied(mask: ImagePlane, values: MaskValues) -> tuple[IntArray, BoolArray]:
    return values.applied(_stored(mask, by_color=values.by_color), mask.label)


def _mask_at(plane: ImagePlane, path: Path) -> ImagePlane:
    masks = _planes_for(plane, path)
    if len(masks) > 1 and _squeezed(masks[0].stack_shape) != _squeezed(plane.stack_shape):
        msg = (
            f"{path.name}: mask stack {masks[0].stack_shape} for an image stack "
            f"{plane.stack_shape or '(one plane)'} '{plane.name}'. Export both with the same axes."
        )
        raise InputError(msg)
    if len(masks) == 1 and int(np.prod(plane.stack_shape)) > 1:
        msg = (
            f"{path.name}: one mask for the stack {plane.stack_shape} '{plane.name}'. "
            "Give a mask stack of the same shape."
        )
        raise InputError(msg)
    place = 0 if len(masks) == 1 else int(np.ravel_multi_index(plane.index, plane.stack_shape))
    return masks[place]


def _check_shape(
    plane: ImagePlane, path: Path, labels: IntArray, shape: tuple[int, ...] | None
) -> None:
    if shape is not None and labels.shape != tuple(shape[:2]):
        msg = (
            f"{path.name}: mask of {labels.shape} for the image {plane.label} of "
            f"{tuple(shape[:2])}. Export the mask at the size of its image."
        )
        raise InputError(msg)


def _planes_for(plane: ImagePlane, path: Path) -> list[ImagePlane]:
    """Planes of a mask file: the series of the image, by the axes that were given for it."""
    opened = _opened(path)
    masks = opened.planes
    fits = _squeezed(masks[0].stack_shape) == _squeezed(plane.stack_shape)
    if plane.axes and opened.is_guessed and not fits:
        without = re.sub("[CS]", "", plane.axes.upper())
        with suppress(InputError):  # a mask has its image's axes, but seldom the channels
            masks = _opened(path, without).planes
    if len({mask.name for mask in masks}) == 1:
        return masks
    series = _file_and_series(plane.name)[1]
    same = [mask for mask in masks if mask.name == stem_of(path) + series]
    if not same:
        msg = f"{path.name}: several masks, none for {plane.name}. Export it with the same series."
        raise InputError(msg)
    return same


def _opened(path: Path, axes: str | None = None) -> OpenedFile:
    """What a mask file holds; the planes of a stack ask for it one after the other."""
    if not path.is_file():
        return open_path(path, axes, palette_indices=True)
    stat = path.stat()
    stamp = stat.st_ino, stat.st_ctime_ns, stat.st_mtime_ns, stat.st_size
    opened = _just_opened(path, stamp, axes)
    if opened.is_faulty or opened.files:  # the memory, or another file, may be there next time
        _just_opened.cache_clear()
    return opened


@lru_cache(maxsize=2)
def _just_opened(path: Path, _stamp: tuple[int, ...], axes: str | None) -> OpenedFile:
    return open_path(path, axes, palette_indices=True)


def _file_and_series(name: str) -> tuple[str, str]:
    """Stem of the file, and the end, [s1], that tells an image from others of its file.

    >>> _file_and_series("cells[s1]"), _file_and_series("cells")
    (('cells', '[s1]'), ('cells', ''))
    """
    match = re.fullmatch(r"(.+)(\[s\d+\])", name)
    return (match[1], match[2]) if match else (name, "")


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n > 1)  # TIFF leaves out axes of length 1


def match_by_stem(
    planes: Sequence[ImagePlane],
    folder: str | Path | Sequence[Path],
    *,
    require_all: bool = True,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Path]:
    """Pair planes with the masks of a folder, pattern or file by name without ending.

    cells.tif goes with cells.png, cells_mask.png, cells-label(s).tif, cells_seg.png, cells_GT.png,
    cells_Object Identities.tif or cells_cp_masks.png; of several images in one file, cells[s1] with
    cells[s1].png, or with the same place in cells.tif. Case and the spelling of accents make no
    difference. The images themselves may lie in the same folder: where it has cells.png and
    cells_mask.png, the latter is the mask. A COCO file of instances names the images itself; a
    GeoJSON file is called as its image is.

    Parameters
    ----------
    folder : str, Path or sequence of Path
        A sequence is of files.
    require_all : bool
        Whether images without a mask are an error, or just left out; none at all always is.
    tell : callable, optional
        Is given a line if there are masks without an image, or that are broken links.

    Returns
    -------
    dict of str to Path
        `ImagePlane.label` to file; read with `read_mask`.

    Raises
    ------
    InputError
        Images without a mask (up to five are named), or with two; or two images of one name.
    """
    images = {plane.path.resolve() for plane in planes if plane.path is not None}
    listing, outlined = masks_in(folder)
    files = [path for path in listing.images if path.resolve() not in images]
    places = {image.parent for image in images}  # of these it is told when they are opened
    no_files = [path for path in listing.no_files if path.parent.resolve() not in places]
    left_out = no_files_line(no_files) if no_files else ""
    names = list(dict.fromkeys(plane.name for plane in planes))
    check_stems(names, names)
    wanted = {folded(name): name for name in names}
    same = _unambiguous((path for path in files if _stem(path) in wanted), _stem)
    named = [path for path in files if _stem(path) not in wanted and _bare(path) in wanted]
    matches = same | _unambiguous(named, _bare)
    matches |= _of_whole_files(set(wanted) - set(matches), files)
    by_label = {p.label: matches[folded(p.name)] for p in planes if folded(p.name) in matches}
    outlines, lone = _by_outlines(planes, outlined)
    for label in by_label.keys() & outlines.keys():
        msg = (
            f"{by_label[label].name} and {outlines[label].name} are both masks of '{label}'. "
            "Remove one."
        )
        raise InputError(msg)
    by_label |= outlines
    missing = list(dict.fromkeys(p.name for p in planes if p.label not in by_label))
    if missing and (require_all or not by_label):
        msg = (
            f"{_place(folder)}: no mask for {some(sorted(missing))}. A mask has the name of its "
            f"image, with or without _mask, _label or _seg. {left_out}"
        )
        raise InputError(msg.rstrip())
    if left_out and tell is not None:
        tell(left_out)
    images |= set(same.values())  # those that have a mask beside them
    beside = [path.name for key, path in same.items() if matches[key] != path]
    if beside and tell is not None:
        tell(f"taken for images, as each has a mask beside it: {some(beside)}.")
    lost = [path.name for path in files if path not in {*matches.values(), *images}] + lone
    if lost and tell is not None:
        tell(f"masks without an image of their name, left out: {some(lost)}.")
    return by_label


def masks_in(source: str | Path | Sequence[Path]) -> tuple[Listing, list[Path]]:
    """Images that may be masks, and files of outlines; a COCO file in a folder has to be named."""
    sources = [Path(source)] if isinstance(source, str | Path) else list(source)
    outlined: list[Path] = []
    images: list[Path] = []
    no_files: list[Path] = []
    for path in (source.expanduser() for source in sources):
        in_folder = sorted(path.glob("*.geojson")) if path.is_dir() else []
        is_one = _has_outlines(path) and path.is_file()
        outlined += [path] if is_one else in_folder
        if is_one or (in_folder and not any(map(is_readable, path.iterdir()))):
            continue
        listing = look(path)
        images += listing.images
        no_files += listing.no_files
    return Listing(tuple(images), (), tuple(no_files)), outlined


def _by_outlines(
    planes: Sequence[ImagePlane], outlined: Sequence[Path]
) -> tuple[dict[str, Path], list[str]]:
    """File of outlines by the plane's label, and names of images that no plane has."""
    labels = {folded(plane.label): plane.label for plane in planes}
    by_label: dict[str, Path] = {}
    lone: list[str] = []
    for path in outlined:
        names = list(_outlines(path).images)
        if path.suffix.lower() == ".geojson" and names[0] not in labels:
            names = [folded(bare_stem(Path(names[0])))]
        for name in names:
            if name not in labels:
                lone.append(name)
            elif (other := by_label.setdefault(labels[name], path)) != path:
                msg = f"{other.name} and {path.name} are both masks of '{name}'. Remove one."
                raise InputError(msg)
    return by_label, lone


def _place(source: str | Path | Sequence[Path]) -> str:
    return str(source) if isinstance(source, str | Path) else some([p.name for p in source])


def _stem(path: Path) -> str:
    return folded(stem_of(path))


def _of_whole_files(missing: Iterable[str], files: Sequence[Path]) -> dict[str, Path]:
    """Masks of images that share a file, where a mask has the name of that file."""
    shared: dict[str, set[str]] = defaultdict(set)
    for name in missing:
        stem, series = _file_and_series(name)
        if series:
            shared[stem].add(name)
    out: dict[str, Path] = {}
    for stem, names in shared.items():
        same = [p for p in files if _stem(p) == stem] or [p for p in files if _bare(p) == stem]
        for path in list(_unambiguous(same, _bare).values())[:1]:
            if len(names) == 1 or planes_of_file(path)[0].name != stem_of(path):
                out |= dict.fromkeys(names, path)
    return out


def _bare(path: Path) -> str:
    return folded(bare_stem(path))


def _unambiguous(files: Iterable[Path], key: Callable[[Path], str]) -> dict[str, Path]:
    seen: dict[str, Path] = {}
    for path in files:
        if (other := seen.setdefault(key(path), path)) != path:
            msg = f"{other.name} and {path.name} are both masks of '{key(path)}'. Remove one."
            raise InputError(msg)
    return seen
