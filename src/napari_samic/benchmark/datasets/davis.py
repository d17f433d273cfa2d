"""DAVIS: videos with the mask of each frame; one object in 2016, several in 2017.

    DAVIS/JPEGImages/480p/bear/00000.jpg, DAVIS/Annotations/480p/bear/00000.png
    DAVIS/ImageSets/2016/val.txt, 2017/val.txt: names of sequences; or, as first published in 2016,
        ImageSets/480p/val.txt: lines of an image and its mask
    davis-flat, our own: images/bear_00000.jpg, masks/bear_00000.png

Sources: Perazzi et al., CVPR 2016; Pont-Tuset et al., arXiv 1704.00675. In 2016 all that is not
ground is the one object, also in masks of 2017. The frame before is the reference of each frame,
with its truth or with what was predicted there; only the first frame is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from napari_samic.benchmark.datasets.base import DataSet, DatasetItem
from napari_samic.benchmark.datasets.layout import by_stem, names_in, read_binary, read_raw, root_of
from napari_samic.core.errors import InputError
from napari_samic.core.types import IntArray
from napari_samic.io.masks import read_labels

SIZE = "480p"
_IMAGES, _MASKS = f"JPEGImages/{SIZE}", f"Annotations/{SIZE}"
_PARTS = ("train", "val")


def read_2016(folder: str | Path, split: str | None = None) -> DataSet:
    """Open DAVIS-16. Parameters and errors as in `read_2017`."""
    return _read(folder, split, "davis-16", ("ImageSets/2016", f"ImageSets/{SIZE}"), read_binary)


def read_2017(folder: str | Path, split: str | None = None) -> DataSet:
    """Open DAVIS-17.

    Parameters
    ----------
    folder : str or Path
        DAVIS, or the folder that holds it.
    split : str, optional
        "train" or "val" lists the frames of that part only. Default: both.

    Raises
    ------
    InputError
        Another folder, or a sequence without frames; it says what is missing.
    """
    return _read(folder, split, "davis-17", ("ImageSets/2017",), read_labels)


def _read(
    folder: str | Path,
    split: str | None,
    name: str,
    lists: tuple[str, ...],
    truth: Callable[[Path], IntArray],
) -> DataSet:
    parts = [split] if split in _PARTS else list(_PARTS)
    wanted = "|".join(f"{place}/{part}.txt" for place in lists for part in parts)
    root = root_of(folder, [_IMAGES, _MASKS, wanted], name.upper(), inner=("DAVIS",))
    items: list[DatasetItem] = []
    for part in parts:
        path = next((p for place in lists if (p := root / place / f"{part}.txt").is_file()), None)
        for sequence in _sequences(path) if path else ():
            items += _frames(root, sequence, part, truth)
    return DataSet(name, tuple(items), "video")


def _sequences(path: Path) -> list[str]:
    """Names of sequences, each once; a line may also be the path of an image."""
    names = names_in(path, "a list of sequences")
    return list(dict.fromkeys(n.split("/")[-2] if "/" in n else n for n in names))


def _frames(
    root: Path, sequence: str, split: str, truth: Callable[[Path], IntArray]
) -> Iterator[DatasetItem]:
    for part in (_IMAGES, _MASKS):
        root_of(root / part, [sequence], "DAVIS")
    masks = by_stem(root / _MASKS / sequence)
    for stem, path in by_stem(root / _IMAGES / sequence).items():
        if stem in masks:
            yield DatasetItem(
                name=f"{sequence}/{stem}",
                label=sequence,
                read_image=partial(read_raw, path),
                read_truth=partial(truth, masks[stem]),
                split=split,
                group=sequence,
            )


def read_flat(folder: str | Path, split: str | None = None) -> DataSet:
    """Open a flat folder of sequences: images/bear_00000.jpg with masks/bear_00000.png.

    Parameters
    ----------
    folder : str or Path
        Without parts: `split` changes nothing.

    Raises
    ------
    InputError
        Another folder; it says what is missing. A name without the number of its frame.
    """
    del split
    root = root_of(folder, ["images", "masks"], "flat DAVIS")
    masks = by_stem(root / "masks")
    images = by_stem(root / "images")
    items = (_flat(stem, path, masks[stem]) for stem, path in images.items() if stem in masks)
    return DataSet("davis-flat", tuple(items), "video")


def _flat(stem: str, path: Path, mask: Path) -> DatasetItem:
    sequence, _, number = stem.rpartition("_")
    if not (sequence and number.isdigit()):
        msg = (
            f"{path}: no number of its frame, expected SEQUENCE_00000. Rename it, or leave it out."
        )
        raise InputError(msg)
    return DatasetItem(
        name=f"{sequence}/{number}",
        label=sequence,
        read_image=partial(read_raw, path),
        read_truth=partial(read_labels, mask),
        group=sequence,
    )
