"""Instruments' own formats: axes, planes and pixels, by the packages of the extra `formats`."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_samic.core.errors import ImageReadError, InputError
from napari_samic.io.images import open_images
from napari_samic.io.masks import read_labels

RNG = np.random.default_rng(0)
ENDINGS = {".czi": "czifile", ".nd2": "nd2", ".lif": "liffile", ".dcm": "pydicom",
           ".nii": "nibabel", ".nii.gz": "nibabel"}  # fmt: skip
WHY = 'comes with the extra: pip install ".[formats]"'


def pixels(*shape: int) -> np.ndarray:
    return RNG.integers(1, 200, shape, dtype=np.uint16)


# --- without the package ----------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_missing_package_is_named_with_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setitem(sys.modules, ENDINGS[ending], None)
    (tmp_path / f"a{ending}").write_bytes(b"")
    message = rf'^a{ending}: needs {ENDINGS[ending]}.*pip install "napari-samic\[formats\]"'
    for source in (tmp_path / f"a{ending}", tmp_path):
        with pytest.raises(InputError, match=message):
            open_images(source)


@pytest.mark.parametrize("ending", ENDINGS)
def test_file_of_another_kind_is_one_line(tmp_path: Path, ending: str) -> None:
    pytest.importorskip(ENDINGS[ending], reason=WHY)
    (tmp_path / f"a{ending}").write_bytes(b"no such file at all" * 9)
    (plane,) = open_images(tmp_path)
    assert plane.name == "a"
    with pytest.raises(ImageReadError, match=rf"^a{ending}: can't be read"):
        plane.read()


def test_exports_beside_them_are_taken_instead(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((6, 7), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.czi").write_bytes(b"")
    lines: list[str] = []
    (plane,) = open_images(tmp_path, tell=lines.append)
    assert plane.path is not None
    assert plane.path.name == "a.png"
    assert "1 .czi" in lines[0]


# --- clinics ----------------------------------------------------------------------------------


def write_dicom(path: Path, stored: np.ndarray, kind: str = "MONOCHROME2", **tags: Any) -> Path:
    pydicom = pytest.importorskip("pydicom", reason=WHY)
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    is_colour = stored.ndim > 2 and stored.shape[-1] == 3
    frames = stored.shape[0] if stored.ndim == 3 + is_colour else 0
    data.Rows, data.Columns = stored.shape[bool(frames) : bool(frames) + 2]
    data.SamplesPerPixel, data.PhotometricInterpretation = (3, "RGB") if is_colour else (1, kind)
    if is_colour:
        data.PlanarConfiguration = 0
    if frames:
        data.NumberOfFrames = frames
    bits = 8 * stored.dtype.itemsize
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = stored.tobytes()
    data.save_as(path, enforce_file_format=True)
    return path


def test_dicom_slice_is_in_the_units_of_its_header(tmp_path: Path) -> None:
    stored = pixels(20, 30)
    path = write_dicom(tmp_path / "a.dcm", stored, RescaleSlope=2, RescaleIntercept=-1024)
    (plane,) = open_images(path)
    np.testing.assert_array_equal(plane.read(), stored * 2.0 - 1024)
    assert plane.stack_shape == ()


def test_dicom_whose_0_is_white_is_turned_round_but_not_as_a_mask(tmp_path: Path) -> None:
    stored = pixels(20, 30)
    path = write_dicom(tmp_path / "a.dcm", stored, "MONOCHROME1")
    np.testing.assert_array_equal(open_images(path)[0].read(), 65535 - stored)
    np.testing.assert_array_equal(read_labels(path), stored)


def test_dicom_frames_are_planes_also_of_colour(tmp_path: Path) -> None:
    for shape in [(4, 20, 30), (4, 20, 30, 3)]:
        stored = pixels(*shape).astype(np.uint8)
        planes = open_images(write_dicom(tmp_path / "a.dcm", stored))
        assert planes[0].stack_shape == (4,)
        np.testing.assert_array_equal([p.read() for p in planes], stored)


def test_dicom_palette_is_shown(tmp_path: Path) -> None:
    stored = pixels(20, 30).astype(np.uint8)
    colours = RNG.integers(0, 256, (3, 256)).astype(np.uint16) << 8
    tables = {}
    for name, table in zip(("Red", "Green", "Blue"), colours, strict=True):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tables[f"{name}PaletteColorLookupTableData"] = table.tobytes()
    path = write_dicom(tmp_path / "a.dcm", stored, "PALETTE COLOR", **tables)
    np.testing.assert_array_equal(open_images(path)[0].read(), colours.T[stored])


def test_folder_of_dicom_slices_is_opened_in_order(tmp_path: Path) -> None:
    for number in (10, 9):
        write_dicom(tmp_path / f"im{number}.dcm", np.full((20, 30), number, np.uint16))
    assert [p.read().max() for p in open_images(tmp_path)] == [9, 10]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nifti_is_read_slice_by_slice(tmp_path: Path, ending: str) -> None:
    nibabel = pytest.importorskip("nibabel", reason=WHY)
    volume = pixels(30, 20, 5).astype(np.int16)  # x, y, z
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"a{ending}")
    planes = open_images(tmp_path / f"a{ending}")
    assert (planes[0].name, planes[0].stack_shape) == ("a", (5,))
    np.testing.assert_array_equal(planes[3].read(), volume[..., 3].T)


def test_nifti_of_one_slice_is_a_lone_image(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel", reason=WHY)
    volume = pixels(30, 20, 1, 1).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "a.nii")
    (plane,) = open_images(tmp_path)
    assert (plane.label, plane.read().shape) == ("a", (20, 30))


# --- microscopes ------------------------------------------------------------------------------


def write_lif(path: Path, images: dict[str, np.ndarray]) -> Path:
    """By hand, as there is no writer: the header in XML, then a block of memory an image."""

    def header(kind: str, text: bytes) -> bytes:
        size = len(text) // 2
        return struct.pack("<IIBI", 0x70, len(text) + 5, 0x2A, size) + text if kind else b""

    elements, blocks = "", b""
    for number, (name, stored) in enumerate(images.items()):  # (C, Z, Y, X) uint16
        channels, depth, rows, columns = stored.shape
        steps = [("X", 1, columns, 2), ("Y", 2, rows, 2 * columns),
                 ("Z", 3, depth, 2 * columns * rows)]  # fmt: skip
        each = 2 * columns * rows * depth
        sizes = "".join(
            f'<DimensionDescription DimID="{i}" NumberOfElements="{n}" Origin="0" Length="1" '
            f'Unit="m" BitInc="0" BytesInc="{step}"/>'
            for _, i, n, step in steps
        )
        colours = "".join(
            '<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" Min="0" Max="1" '
            'NameOfMeasuredQuantity="" Unit="" LUTName="Gray" IsLUTInverted="0" BitInc="0" '
            f'BytesInc="{c * each}"/>'
            for c in range(channels)
        )
        elements += (
            f'<Element Name="{name}"><Data><Image><ImageDescription><Channels>{colours}</Channels>'
            f"<Dimensions>{sizes}</Dimensions></ImageDescription></Image></Data>"
            f'<Memory Size="{stored.nbytes}" MemoryBlockID="MemBlock_{number}"/></Element>'
        )
        title = f"MemBlock_{number}".encode("utf-16-le")
        blocks += struct.pack(
            "<IIBQBI", 0x70, 14 + len(title), 0x2A, stored.nbytes, 0x2A, len(title) // 2
        )
        blocks += title + stored.astype("<u2").tobytes()
    xml = (
        f'<LMSDataContainerHeader Version="2"><Element Name="a"><Children>{elements}</Children>'
        "</Element></LMSDataContainerHeader>"
    )
    path.write_bytes(header("xml", xml.encode("utf-16-le")) + blocks)
    return path


def test_lif_images_are_series_with_stacks_and_channels(tmp_path: Path) -> None:
    pytest.importorskip("liffile", reason=WHY)
    one, two = pixels(2, 3, 20, 30), pixels(1, 1, 24, 16)
    planes = open_images(write_lif(tmp_path / "a.lif", {"one": one, "two": two}))
    assert [p.label for p in planes] == ["a[s0][0]", "a[s0][1]", "a[s0][2]", "a[s1]"]
    for z in range(3):
        np.testing.assert_array_equal(planes[z].read(), np.moveaxis(one[:, z], 0, -1))
    np.testing.assert_array_equal(planes[3].read(), two[0, 0])


def test_czi_scene_is_read_plane_by_plane(tmp_path: Path) -> None:
    pytest.importorskip("czifile", reason=WHY)
    czi = pytest.importorskip("pylibCZIrw.czi", reason="the only writer of CZI, not in the extra")
    stored = pixels(2, 3, 40, 50)
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for channel in range(2):
            for z in range(3):
                plane = {"C": channel, "Z": z, "T": 0}
                file.write(data=stored[channel, z, ..., None], plane=plane)
    planes = open_images(tmp_path / "a.czi")
    assert [p.label for p in planes] == ["a[0]", "a[1]", "a[2]"]
    for z, plane in enumerate(planes):
        np.testing.assert_array_equal(plane.read(), np.moveaxis(stored[:, z], 0, -1))


def test_czi_tiles_are_put_together(tmp_path: Path) -> None:
    pytest.importorskip("czifile", reason=WHY)
    czi = pytest.importorskip("pylibCZIrw.czi", reason="the only writer of CZI, not in the extra")
    stored = pixels(40, 60)
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for left in (0, 30):
            tile = np.ascontiguousarray(stored[:, left : left + 30, None])
            file.write(data=tile, location=(left, 0), plane={"C": 0, "Z": 0, "T": 0})
    (plane,) = open_images(tmp_path / "a.czi")
    np.testing.assert_array_equal(plane.read(), stored)


def test_nd2_axes_are_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing writes ND2: the package's file is stood in for by what we use of it."""
    nd2 = pytest.importorskip("nd2", reason=WHY)
    da = pytest.importorskip("dask.array")
    stored = pixels(2, 3, 2, 20, 30)

    class File:
        shape, dtype = stored.shape, stored.dtype

        def __init__(self, path: Path) -> None:
            assert path.name == "a.nd2"
            self.sizes = dict(zip("PZCYX", stored.shape, strict=True))

        def __enter__(self) -> File:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def to_dask(self) -> Any:
            return da.from_array(stored, chunks=(1, 1, *stored.shape[2:]))

    monkeypatch.setattr(nd2, "ND2File", File)
    (tmp_path / "a.nd2").write_bytes(b"")
    planes = open_images(tmp_path)
    assert planes[0].stack_shape == (2, 3)
    np.testing.assert_array_equal(planes[4].read(), np.moveaxis(stored[1, 1], 0, -1))
