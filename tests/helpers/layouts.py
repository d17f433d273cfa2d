"""Small folders in the layouts of public data sets: 16 x 16 pixels an image, one colour each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 16


def picture(path: Path, grey: int = 100) -> Path:
    """An image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((SIDE, SIDE, 3), grey, np.uint8)).save(path)
    return path


def mask(path: Path, value: int = 255, rows: int = 4, ground: int = 0) -> Path:
    """`value` in the first rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((SIDE, SIDE), ground, np.uint8)
    pixels[:rows] = value
    Image.fromarray(pixels).save(path)
    return path


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def instances(
    path: Path, notes: Sequence[tuple[int, int, Any]], classes: dict[int, str], name: str = "{}.jpg"
) -> Path:
    """A COCO file; `notes` are image, class and outline."""
    tree = {
        "images": [
            {"id": n, "file_name": name.format(n), "height": SIDE, "width": SIDE}
            for n in sorted({image for image, _, _ in notes}, reverse=True)
        ],
        "annotations": [
            {"id": i, "image_id": n, "category_id": c, "segmentation": s, "iscrowd": 0}
            for i, (n, c, s) in enumerate(notes)
        ],
        "categories": [{"id": n, "name": label} for n, label in classes.items()],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree), encoding="utf-8")
    return path


def square(x: float, y: float, side: float) -> list[list[float]]:
    """A polygon as COCO has it."""
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


COCO_CLASSES = {n + 10: f"class{n:02d}" for n in range(80)}


def coco(root: Path, images: int = 3, part: str = "val") -> Path:
    """`images` of each of 80 classes, one class an image."""
    notes = [(100 * c + n, c, square(n, 0, 4)) for c in COCO_CLASSES for n in range(images)]
    name = f"COCO_{part}2014_{{:012d}}.jpg"
    instances(root / "annotations" / f"instances_{part}2014.json", notes, COCO_CLASSES, name)
    (root / f"{part}2014").mkdir(parents=True, exist_ok=True)
    return root


def pascal(root: Path, images: int = 3) -> Path:
    """`images` of each of 20 classes; the last of each is for training; 255 on the last row."""
    tested = []
    for number in range(1, 21):
        for n in range(images):
            stem = f"2007_{number:03d}{n:03d}"
            picture(root / "JPEGImages" / f"{stem}.jpg", number)
            path = mask(root / "SegmentationClassAug" / f"{stem}.png", number)
            pixels = np.array(Image.open(path))
            pixels[-1] = 255
            Image.fromarray(pixels).save(path)
            tested += [stem] * (n < images - 1)
    text(root / "ImageSets" / "Segmentation" / "val.txt", *tested)
    return root


def fss(root: Path, labels: Sequence[str] = ("axe", "bear", "cat"), images: int = 10) -> Path:
    for label in labels:
        for n in range(1, images + 1):
            picture(root / label / f"{n}.jpg")
            mask(root / label / f"{n}.png", 250, ground=30)
    return root


def perseg(root: Path, labels: Sequence[str] = ("cat", "dog"), images: int = 3) -> Path:
    for label in labels:
        for n in range(images):
            picture(root / "Images" / label / f"{n:02d}.jpg", 10 * n)
            mask(root / "Annotations" / label / f"{n:02d}.png", 128)
    return root


def pairs(
    root: Path, count: int = 10, images: str = "images", masks: str = "masks", ending: str = "png"
) -> Path:
    for n in range(count):
        picture(root / images / f"p{n}.jpg", n)
        mask(root / masks / f"p{n}.{ending}", rows=n + 1)
    return root


def davis(root: Path, sequences: Sequence[str] = ("bear", "cow", "dog"), frames: int = 4) -> Path:
    """The last sequence is for validation; objects 1 and 2 in each frame."""
    for name in sequences:
        for n in range(frames):
            picture(root / "JPEGImages/480p" / name / f"{n:05d}.jpg", n)
            path = mask(root / "Annotations/480p" / name / f"{n:05d}.png", 1)
            pixels = np.array(Image.open(path))
            pixels[0] = 2
            Image.fromarray(pixels).save(path)
    for year in ("2016", "2017"):
        text(root / "ImageSets" / year / "train.txt", *sequences[:-1])
        text(root / "ImageSets" / year / "val.txt", sequences[-1])
    return root


def nwpu(root: Path) -> Path:
    """Ten images with a ship each; the first five with a bridge, too."""
    inner = root / "NWPU VHR-10 dataset"
    for n in range(1, 11):
        picture(inner / "positive image set" / f"{n:03d}.jpg", n)
        lines = ["( 2, 3),( 5, 6),2 ", *["(0,0),(1,15),9"] * (n <= 5), ""]
        text(inner / "ground truth" / f"{n:03d}.txt", *lines)
    return root
