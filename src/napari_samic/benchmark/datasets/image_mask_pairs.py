"""Sets of one class: folders of images with folders of masks.

    Kvasir-SEG/images/cju0qkwl.jpg, masks/cju0qkwl.jpg, and train.txt with val.txt where the
        official division into 880 and 120 was added (both lie beside or in the folder)
    TSMU: image/ or images/ or img/, with mask/, masks/ or label/, labels/; or one such pair in
        each folder of a region or part (train, val, test), at most two folders deep
    folder: images/ and masks/, or any stack and mask that the shell takes; objects keep numbers

Sources: Jha et al., MultiMedia Modeling 2020 (Kvasir-SEG). How the landslide tiles of SAMIC's TSMU
were published could not be found out, so that the usual names are taken. A fifth of the training
images are references, as in SAMIC.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from napari_samic.benchmark.datasets.base import DataSet, DatasetItem
from napari_samic.benchmark.datasets.layout import (
    by_stem,
    names_in,
    part_of,
    read_binary,
    read_raw,
    root_of,
    sub_folders,
)
from napari_samic.core.types import BoolArray, ImagePlane, run_job
from napari_samic.io.images import open_images
from napari_samic.io.mask_values import MaskValues
from napari_samic.io.masks import match_by_stem, meaning_of, read_mask, read_truth

IMAGES = "image|images|img"
MASKS = "mask|masks|label|labels"
_SPLITS = ("train", "val", "test")


def read_kvasir(folder: str | Path, split: str | None = None) -> DataSet:
    """Open Kvasir-SEG; a `split` is no faster than all.

    Parameters
    ----------
    folder : str or Path
        The folder of images and masks, or one that holds it as Kvasir-SEG.

    Raises
    ------
    InputError
        Another folder; it says what is missing.
    """
    del split
    root = root_of(folder, ["images", "masks"], "Kvasir-SEG", inner=("Kvasir-SEG", "kvasir-seg"))
    parts = {Path(name).stem: part for part in _SPLITS for name in _list(root, part)}
    items = tuple(_pairs(root, "images", "masks", "polyp", parts))
    return DataSet("kvasir-seg", items, "share")


def _list(root: Path, part: str) -> list[str]:
    """Names in train.txt or val.txt, if it is there."""
    for place in (root, root.parent):
        if (path := place / f"{part}.txt").is_file():
            return names_in(path, "a list of image names")
    return []


def _pairs(
    root: Path,
    images: str,
    masks: str,
    label: str,
    parts: dict[str, str],
    *,
    split: str = "",
    group: str = "",
) -> Iterator[DatasetItem]:
    truths = by_stem(root / masks)
    for stem, path in by_stem(root / images).items():
        if stem in truths:
            yield DatasetItem(
                name=f"{group}/{stem}" if group else stem,
                label=label,
                read_image=partial(read_raw, path),
                read_truth=partial(read_binary, truths[stem]),
                split=parts.get(stem, split),
                group=group,
            )


def read_tsmu(folder: str | Path, split: str | None = None) -> DataSet:
    """Open the landslide tiles; a `split` is no faster than all.

    Parameters
    ----------
    folder : str or Path
        The folder of images and masks, or of folders that hold these.

    Raises
    ------
    InputError
        Another folder; it says what is missing.
    """
    del split
    root = Path(folder).expanduser()
    places = list(_places(root))
    if not places:
        root_of(root, [IMAGES, MASKS], "TSMU")  # raises: neither here nor further in
    return DataSet("tsmu", tuple(i for place in places for i in _tiles(root, place)), "share")


def _places(root: Path, depth: int = 2) -> Iterator[Path]:
    """Folders that hold images and masks: `root`, or those in it."""
    if all(part_of(root, part).is_dir() for part in (IMAGES, MASKS)):
        yield root
    elif depth and root.is_dir():
        for place in sub_folders(root):
            yield from _places(place, depth - 1)


def _tiles(root: Path, place: Path) -> Iterator[DatasetItem]:
    inner = place.relative_to(root).parts
    split = next((name.lower() for name in inner if name.lower() in _SPLITS), "")
    images, masks = part_of(place, IMAGES).name, part_of(place, MASKS).name
    yield from _pairs(place, images, masks, "landslide", {}, split=split, group="/".join(inner))


def read_folder(folder: str | Path, split: str | None = None) -> DataSet:
    """Open a folder of your own: images/ and masks/, paired by name, numbers of objects kept.

    Parameters
    ----------
    folder : str or Path
        Stacks are one item a slice. Images without a mask are left out.

    Raises
    ------
    InputError
        Another folder; it says what is missing. No image has a mask, or one has two. Masks whose
        values could mean this or that.
    """
    del split
    root = root_of(folder, ["images", "masks"], "images with masks")
    planes = open_images(root / "images")
    masks = match_by_stem(planes, root / "masks", require_all=False)
    values = run_job(meaning_of(masks.values())).values
    items = tuple(
        DatasetItem(
            plane.label,
            "object",
            plane.read,
            partial(read_mask, plane, masks[plane.label], values=values),
            read_ignored=partial(_void, plane, masks[plane.label], values) if values.void else None,
        )
        for plane in planes
        if plane.label in masks
    )
    return DataSet(root.resolve().name, items, "share")


def _void(plane: ImagePlane, path: Path, values: MaskValues) -> BoolArray:
    return read_truth(plane, path, values=values)[1]
