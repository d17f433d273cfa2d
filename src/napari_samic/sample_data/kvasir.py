"""Kvasir-SEG, a public set of 1000 endoscopic images with outlines of polyps, fetched on demand.

Source: Jha et al., MultiMedia Modeling 2020; for research and education only. The archive is
compared with its checksum, and unpacked whole or not at all. Knows no napari.
"""

from __future__ import annotations

import shutil
import zipfile
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from napari_samic.core.errors import InputError, WeightsError
from napari_samic.core.types import Job, JobProgress
from napari_samic.io.cache import home_folder
from napari_samic.io.paths import list_source, stem_of

URL = "https://datasets.simula.no/downloads/kvasir-seg.zip"
SHA256 = "03b30e21d584e04facf49397a2576738fd626815771afbbf788f74a7153478f7"
"""As ncalab publishes it; no checksum comes from the authors of the set."""
ARCHIVE = "kvasir-seg.zip"
LARGEST = 500_000_000
"""Bytes that the archive may unpack to; it has 60 million."""


def folder() -> Path:
    """Where the set lies: `images/` and `masks/`."""
    return home_folder() / "samples" / "kvasir-seg"


def is_here() -> bool:
    """Whether it was fetched."""
    return (folder() / "images").is_dir() and (folder() / "masks").is_dir()


def fetch(url: str = URL, sha256: str = SHA256) -> Job[Path]:
    """Fetch the set, unless it is there.

    Returns
    -------
    Job of Path
        Its folder.

    Raises
    ------
    WeightsError
        No network, another checksum, or an archive of another make.
    """
    target = folder()
    if is_here():
        return target
    yield JobProgress(0, 0, "fetching Kvasir-SEG, 46 MB")
    archive = _archive(url, sha256, target.parent)
    yield JobProgress(0, 0, "unpacking Kvasir-SEG")
    temporary = target.with_name(target.name + ".unpacking")
    try:
        with zipfile.ZipFile(archive) as packed:
            if (size := sum(member.file_size for member in packed.infolist())) > LARGEST:
                raise ValueError(f"unpacks to {size} bytes, expected at most {LARGEST}")
        shutil.unpack_archive(archive, temporary, "zip")
        inner = next((p.parent for p in temporary.rglob("images") if p.is_dir()), None)
        if inner is None or not (inner / "masks").is_dir():
            raise WeightsError(f"{archive.name}: no folders images and masks. Fetch it again.")
        inner.replace(target)
    except (OSError, ValueError, shutil.ReadError, zipfile.BadZipFile) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{archive}: can't be unpacked ({error}).") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    with suppress(OSError):
        archive.unlink()
    return target


def _archive(url: str, sha256: str, place: Path) -> Path:
    import pooch

    try:
        pooch.get_logger().setLevel("WARNING")
        return Path(pooch.retrieve(url, f"sha256:{sha256}", fname=ARCHIVE, path=place))
    except Exception as error:  # pooch passes on whatever its downloader raises
        text = " ".join(str(error).split())
        msg = (
            f"Kvasir-SEG can't be fetched ({text[:200]}). Download {url} with a browser, and put "
            f"it at {place / ARCHIVE}."
        )
        raise WeightsError(msg) from error


def pairs() -> list[tuple[Path, Path]]:
    """Images with their masks, of the size that most of them have.

    Raises
    ------
    InputError
        The folder lacks them.
    """
    from PIL import Image

    masks = {stem_of(path): path for path in list_source(folder() / "masks")}
    sizes: defaultdict[tuple[int, int], list[tuple[Path, Path]]] = defaultdict(list)
    for path in list_source(folder() / "images"):
        if path.stem in masks:
            with Image.open(path) as image:  # reads the header only
                sizes[image.size].append((path, masks[path.stem]))
    if not sizes:
        raise InputError(f"{folder()}: no image has a mask. Remove the folder and fetch it again.")
    return max(sizes.values(), key=len)
