"""No file of a stranger, up to 40 MB, takes more than 500 MB before it is refused."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

if sys.platform != "linux":
    pytest.skip("only Linux tells the peak of a process", allow_module_level=True)

MOST_MB = 500
READ = """
import sys, tempfile
import numpy, tifffile, torch, PIL.Image
from pathlib import Path
from napari_samic.core.errors import SamicError
from napari_samic.gui.data.project import Project
from napari_samic.io.images import open_images
from napari_samic.io.masks import read_labels
from napari_samic.io.prompts import load_prompts
from napari_samic.io.reviews import load_review
from napari_samic.models.hub import checkpoints
from napari_samic.models.samic import serialization
from napari_samic.recipes import load_recipe

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024

def image(path):
    for plane in open_images(path):
        plane.read()

def project(path):
    with tempfile.TemporaryDirectory() as place:
        Path(place, "project.json").hardlink_to(path)
        Project.open(place)

READERS = {".json": (load_prompts, load_review, project), ".yaml": (load_recipe,),
           ".pt": (checkpoints.read, serialization.describe)}
folder = Path(sys.argv[1])
before = peak()
for path in sorted(folder.iterdir()):
    for read in READERS.get(path.suffix, (image, read_labels)):
        try:
            read(path)
        except SamicError as error:
            assert "\\n" not in str(error)
        else:
            sys.exit(f"{path.name} was taken")
    print(path.name, round(peak() - before), flush=True)
"""


def png(side: int, level: bytes) -> bytes:
    """A picture that claims (side, side) pixels, of the one row again and again."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    packer = zlib.compressobj(9)
    row = b"\0" + level * side
    rows = b"".join(packer.compress(row) for _ in range(2000)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"".join((b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", rows)))


def claiming_tiff() -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((64, 64), np.uint8), compression="zlib", rowsperstrip=64)
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        offsets = [tiff.pages[0].tags[c].valueoffset for c in ("ImageWidth", "ImageLength")]
    content = bytearray(file.getvalue())
    for offset in offsets:
        content[offset : offset + 4] = struct.pack("<I", 60_000)
    return bytes(content)


def zipped_weights() -> bytes:
    file = io.BytesIO()
    torch.save({"a": torch.zeros(4)}, file)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/9", bytes(900_000_000))
    return file.getvalue()


def expanded_weights() -> bytes:
    file = io.BytesIO()
    torch.save({"a": torch.zeros(1).expand(10**10)}, file)
    return file.getvalue()


OBJECT = '{"class": 1, "points": [{"row": 1, "column": 1, "foreground": true}]}'
HOSTILE = {
    "open.json": lambda: b"[" * 39_000_000,
    "wide.json": lambda: b"[" + b"[]," * 13_000_000 + b"1]",
    "numbers.json": lambda: b"[" + b"0," * 19_000_000 + b"1]",
    "long.json": lambda: b'{"images": "' + b"x" * 39_000_000 + b'"}',
    "letters.json": lambda: b'{"a": "' + "\U0001f52c".encode() + b"x" * 39_000_000 + b'"}',
    "many.json": lambda: ('{"images": [' + ",".join([OBJECT] * 500_000) + "]}").encode(),
    "keys.json": lambda: json.dumps({str(i): i for i in range(2_000_000)}).encode(),
    "large.yaml": lambda: b"a: " + b"x" * 39_000_000,
    "deep.yaml": lambda: b"a: " + b"[" * 1_000_000,
    "steps.yaml": lambda: b"steps:\n" + b"- {job: train}\n" * 2_500_000,
    "zipped.pt": zipped_weights,
    "expanded.pt": expanded_weights,
    "lists.pt": lambda: b"\x80\x02" + b"]" * 9_000_000 + b".",
    "claims.png": lambda: png(60_000, b"\x07"),
    "claims.tif": claiming_tiff,
    "ring.tif": lambda: struct.pack("<2sHIHI", b"II", 42, 8, 0, 8),
}


def test_hostile_files_are_refused_within_the_memory(tmp_path: Path) -> None:
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name, content in HOSTILE.items():
        (folder / name).write_bytes(content())
    done = subprocess.run(
        [sys.executable, "-c", READ, str(folder)],
        capture_output=True, text=True, check=False, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    peaks = dict(line.split() for line in done.stdout.splitlines())
    assert len(peaks) == len(HOSTILE)
    assert all(float(peak) < MOST_MB for peak in peaks.values()), peaks
