"""A backbone whose features are colours, and pictures of coloured discs: learned in seconds."""

import hashlib

import numpy as np
import PIL.Image
import torch
from torch.nn import functional as F

from napari_samic.core.settings import HeatMapSettings, PrompterSettings, TrainSettings
from napari_samic.core.types import Prompts, Reference
from napari_samic.models.samic.prompter import SamicPrompter

COLOURS = {1: (220, 40, 40), 2: (40, 40, 220), 3: (40, 200, 60)}
GREY = 128


class ColourBackbone:
    """Colour less grey, and a constant, on grids of 8, 4 and 2; pads, or squeezes as ResNet."""

    map_px = 32
    input_px = 64
    name = "colours"
    device = torch.device("cpu")

    def __init__(self, *, squeeze=False, version="1"):
        self.squeeze = squeeze
        self.weights_sha256 = hashlib.sha256(version.encode()).hexdigest()
        self.passes = 0

    def features(self, image):
        self.passes += 1
        rows, columns = (
            max(1, int(n * self.input_px / f + 0.5))
            for n, f in zip(image.shape[:2], self.frame(image.shape), strict=True)
        )
        small = PIL.Image.fromarray(image).resize((columns, rows), PIL.Image.Resampling.BILINEAR)
        x = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 128 - 1
        x = torch.cat([x, torch.full_like(x[:, :1], 0.3)], 1)
        x = F.pad(x, (0, self.input_px - columns, 0, self.input_px - rows))
        return [[F.adaptive_avg_pool2d(x, grid)] for grid in (8, 4, 2)]

    def frame(self, shape):
        return tuple(shape[:2]) if self.squeeze else (max(shape[:2]),) * 2


def discs(places, shape=(64, 64), radius=6, seed=0):
    """Grey picture with discs: `places` are (row, column, class)."""
    rng = np.random.default_rng(seed)
    image = rng.normal(GREY, 6, (*shape, 3)).clip(0, 255).astype(np.uint8)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for row, column, label in places:
        image[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = COLOURS[label]
    return image


def clicks(places):
    return tuple(Prompts(np.array([p[:2]], float), np.array([True]), label=p[2]) for p in places)


def reference(name, places, *, asked=(1,), shape=(64, 64), seed=0):
    """Discs of all classes, clicked where their class is `asked` for."""
    image = discs(places, shape, seed=seed)
    return Reference(name, image, clicks([p for p in places if p[2] in asked]))


def references(count, *, asked=(1,), seed=0):
    """Pictures with a disc of class 1 and one of class 2 at random, never touching."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        rows, left = rng.permutation([14, 32, 50])[:2], rng.random() < 0.5
        columns = rng.integers(10, 24), rng.integers(40, 54)
        first, second = columns if left else columns[::-1]
        places = [(int(rows[0]), int(first), 1), (int(rows[1]), int(second), 2)]
        out.append(reference(f"r{i}", places, asked=asked, seed=i))
    return out


def prompter(*, backbone=None, seed=0, **settings):
    return SamicPrompter(
        backbone or ColourBackbone(),
        settings=PrompterSettings(**settings),
        heat=HeatMapSettings(sigma_frac=0.08),
        seed=seed,
    )


def quick(**changes):
    values = {"epochs": 3, "views": 1, "learning_rate": 3e-3, "kld_weight": 1.0, "cc_weight": 1.0}
    return TrainSettings(**{**values, "nss_weight": 0.2, **changes})
