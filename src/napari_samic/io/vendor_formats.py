"""Instruments' and clinics' own formats, by packages of the extra `formats`.

Each opener answers the images of a file with the axes of its metadata. The packages are imported
when a file needs one. Knows no ImagePlane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_samic.core.errors import InputError
from napari_samic.io.paths import ending_of
from napari_samic.io.readers import ImageSet, LazyArray, Selection, reading


def open_vendor(path: Path, *, as_stored: bool = False) -> ImageSet:
    """Images of a CZI, ND2, LIF, DICOM or NIfTI file; axes of length 1 are left out.

    Parameters
    ----------
    as_stored : bool
        Give the numbers that a DICOM holds, not what they look like.

    Raises
    ------
    InputError
        The package for it is not installed.
    ImageReadError
        The file can't be read.
    """
    with reading(path.name), _needing(path.name):
        ending = ending_of(path)
        is_dicom = ending == ".dcm"
        arrays = _dicom(path, as_stored=as_stored) if is_dicom else _OPENERS[ending](path)
        return ImageSet([_squeezed(array) for array in arrays])


@contextmanager
def _needing(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        package = (error.name or "a package").partition(".")[0]
        msg = (
            f'{name}: needs {package}. Install it with pip install "napari-samic[formats]", or '
            "export the image as TIFF."
        )
        raise InputError(msg) from error


def _squeezed(lazy: LazyArray) -> LazyArray:
    kept = [n > 1 or axis in "YX" for n, axis in zip(lazy.shape, lazy.axes, strict=True)]

    def take(selection: Selection) -> NDArray[Any]:
        parts = iter(selection)
        return lazy.take(tuple(next(parts) if keep else 0 for keep in kept))

    shape = tuple(n for n, keep in zip(lazy.shape, kept, strict=True) if keep)
    axes = "".join(axis for axis, keep in zip(lazy.axes, kept, strict=True) if keep)
    return LazyArray(shape, axes, take, lazy.dtype, lazy.finish)


# --- microscopes --------------------------------------------------------------------------------


def _czi(path: Path) -> Iterator[LazyArray]:
    from czifile import CziFile

    with CziFile(path) as file:  # S scenes, I illuminations, 0 samples; others as tifffile has them
        axes = file.axes.translate(str.maketrans("SI0", "PLS"))
        yield LazyArray(_ints(file.shape), axes, partial(_take_czi, path), np.dtype(file.dtype))


def _take_czi(path: Path, selection: Selection) -> NDArray[Any]:
    """Read the blocks of the file that the selection meets, and no others."""
    from czifile import CziFile

    with CziFile(path) as file:
        ranges = [
            range(part, part + 1) if isinstance(part, int) else range(n)[part]
            for part, n in zip(selection, file.shape, strict=True)
        ]
        out = np.zeros([len(r) for r in ranges], file.dtype)
        for block in file.filtered_subblock_directory:
            begin = np.subtract(block.start, file.start) - [r.start for r in ranges]
            end = begin + block.shape
            low, high = np.maximum(begin, 0), np.minimum(end, out.shape)
            if (low < high).all():
                place = tuple(map(slice, low, high))
                part = tuple(map(slice, low - begin, high - begin))
                out[place] = block.data_segment().data(resize=True)[part]
    return out[tuple(0 if isinstance(part, int) else slice(None) for part in selection)]


def _nd2(path: Path) -> Iterator[LazyArray]:
    from nd2 import ND2File

    with ND2File(path) as file:
        axes = "".join(file.sizes)
        yield LazyArray(_ints(file.shape), axes, partial(_take_nd2, path), np.dtype(file.dtype))


def _take_nd2(path: Path, selection: Selection) -> NDArray[Any]:
    from nd2 import ND2File

    with ND2File(path) as file:
        return np.asarray(file.to_dask()[selection])


def _lif(path: Path) -> Iterator[LazyArray]:
    from liffile import LifFile

    with LifFile(path) as file:
        for number, image in enumerate(file.images):
            take = partial(_take_lif, path, number)
            yield LazyArray(_ints(image.shape), "".join(image.dims), take, np.dtype(image.dtype))


def _take_lif(path: Path, number: int, selection: Selection) -> NDArray[Any]:
    from liffile import LifFile

    with LifFile(path) as file:
        image = file.images[number]
        lead = [axis for axis in image.dims if axis not in image.frames.frame_sizes]
        ranges = [
            [part] if isinstance(part, int) else range(image.sizes[axis])
            for axis, part in zip(lead, selection, strict=False)
        ]
        frames = [image.frame(**dict(zip(lead, at, strict=True))) for at in product(*ranges)]
        kept = [len(r) for r, part in zip(ranges, selection, strict=False) if part == slice(None)]
        return np.stack(frames).reshape(*kept, *frames[0].shape)


# --- clinics ------------------------------------------------------------------------------------


def _dicom(path: Path, *, as_stored: bool) -> Iterator[LazyArray]:
    import pydicom

    header = pydicom.dcmread(path, stop_before_pixels=True)
    frames, samples = int(header.get("NumberOfFrames") or 1), int(header.SamplesPerPixel)
    shape = (frames, int(header.Rows), int(header.Columns), samples)
    finish = None if as_stored else partial(_dicom_as_shown, header)
    yield LazyArray(
        shape, "ZYXS", partial(_take_dicom, path), np.dtype(f"u{header.BitsAllocated // 8}"), finish
    )


def _take_dicom(path: Path, selection: Selection) -> NDArray[Any]:
    from pydicom.pixels import pixel_array

    return np.asarray(pixel_array(path, index=selection[0]))  # (H, W) or RGB, (H, W, 3)


def _dicom_as_shown(header: Any, pixels: NDArray[Any]) -> NDArray[Any]:
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    kind = header.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        return np.asarray(apply_color_lut(pixels, header))
    if kind == "MONOCHROME1":  # 0 is white
        pixels = (-1 if header.PixelRepresentation else (1 << header.BitsStored) - 1) - pixels
    return np.asarray(apply_modality_lut(pixels, header)) if pixels.ndim == 2 else pixels


def _nifti(path: Path) -> Iterator[LazyArray]:
    import nibabel

    image = nibabel.load(path)
    axes = "XYZTCQQ"[: len(image.shape)]
    yield LazyArray(_ints(image.shape), axes, partial(_take_nifti, path), image.get_data_dtype())


def _take_nifti(path: Path, selection: Selection) -> NDArray[Any]:
    import nibabel

    return np.asarray(nibabel.load(path).dataobj[selection])


def _ints(shape: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in shape)


_OPENERS: dict[str, Callable[[Path], Iterator[LazyArray]]] = {
    ".czi": _czi,
    ".nd2": _nd2,
    ".lif": _lif,
    ".nii": _nifti,
    ".nii.gz": _nifti,
}
