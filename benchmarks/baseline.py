"""The literal pipeline against ours: how many times faster each step is, in one run.

    python benchmarks/baseline.py [--out benchmarks/RESULTS.md] [--check] [--images 200]

The literal form computes what the paper's reference code computes, as it does it: the backbone for
both images of each pair every time, batch norms as they are, all cells correlated, both halves of
each 4-D convolution at every tap, nothing kept, and the segmenter's encoder for each object. Ours
is what the package does. Both have the same weights (random ones of ResNet-50 and vit_b) and are
timed in turn, A B A B; the ratio is that of the medians. `difference` is the largest of the two
outputs. `of limit` is the time of the floating point operations that are needed at least, by what a
product of large matrices reaches here, as a share of ours. `16 bits`: in the backbone alone.

Whole runs are of the command `segment`, loading included, with five references and the paper's
prompter: --images drawn scenes into a new folder, and into another once their features are known.
The literal form is timed on --literal of them. `vit_b` is 20 images and a prompter of one reference
after another has seen them, with one click as the prompt of each; the literal form on 2 of them.
`beside two busy processes` compares `segment` with three times what it takes alone: a fair share.

--out writes the table; --check compares with the table that is there, and ends with 1 if a ratio is
a fifth below it.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import timm
import torch
from segment_anything import sam_model_registry
from torch import Tensor
from torch.nn import functional as F

from napari_samic import pipeline
from napari_samic.core.settings import (
    AdaptSettings,
    PrompterSettings,
    TrainSettings,
)
from napari_samic.core.types import Prompts, Reference, run_job
from napari_samic.io.cache import ArrayCache
from napari_samic.models.features import timm_weights
from napari_samic.models.features.backbones import SegmenterBackbone, TimmBackbone
from napari_samic.models.losses import SALIENCY_LOSSES, saliency_loss
from napari_samic.models.sam.segmenter import load_segmenter
from napari_samic.models.samic.hypercorrelation import NormalizedFeatures, correlate
from napari_samic.models.samic.prompter import SamicPrompter
from napari_samic.pipeline.predictor import ImagePredictor
from napari_samic.pipeline.segment import open_predictor
from napari_samic.sample_data.samples import sample_set

ROUNDS, EPS, FALL = 5, 1e-5, 0.2
PAPER = PrompterSettings(mask_mode="faithful", centre=False)
BACKBONE, PAIR, STEP = 8.17, 2.8, 27.7
"""GFLOP that are needed at least: learner without dead taps 2.31, active correlation 0.45."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    plain_s: float
    ours_s: float
    aim: str
    difference: str
    limit_s: float = 0.0

    @property
    def ratio(self) -> float:
        return self.plain_s / self.ours_s


def paired(plain: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Medians of seconds, in turn, after one round that does not count."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for count in range(rounds + 1):
        for act, kept in zip((plain, ours), seconds, strict=True):
            begun = time.perf_counter()
            act()
            if count:
                kept.append(time.perf_counter() - begun)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


@dataclass(frozen=True)
class Speed:
    """GFLOP a second that this machine reaches."""

    float32: float
    bfloat16: float


# --- the literal form


class Literal:
    """HSNet as its reference code has it, on the learner of a prompter."""

    def __init__(self, prompter: SamicPrompter, look: Callable[[np.ndarray], Any]) -> None:
        self.prompter, self.look = prompter, look

    def levels(self, image: np.ndarray) -> list[list[Tensor]]:
        """Blocks of an image, fine to coarse."""
        return [list(level) for level in self.look(image)]

    def pyramid(
        self, target: list[list[Tensor]], reference: list[list[Tensor]], heat: Tensor
    ) -> Any:
        """l4, l3, l2 of (1, L, ha, wa, hb, wb)."""
        out = []
        for a, b in zip(target, reference, strict=True):
            h, w = b[0].shape[2:]
            weight = F.interpolate(heat[:, None], (h, w), mode="bilinear", align_corners=True)
            blocks = []
            for x, y in zip(a, b, strict=True):
                q, s = x.flatten(2), (y * weight).flatten(2)
                q = q / (q.norm(dim=1, keepdim=True) + EPS)
                s = s / (s.norm(dim=1, keepdim=True) + EPS)
                blocks.append((q.transpose(1, 2) @ s).clamp(min=0).view(-1, *x.shape[2:], h, w))
            out.append(torch.stack(blocks, 1))
        return out[::-1]

    def map(self, target: np.ndarray, references: Sequence[Reference]) -> Tensor:
        """Mean map, (S, S); both images through the backbone for each pair."""
        maps = []
        for reference in references:
            heat = self.prompter.map_of(reference.objects, reference.image.shape)
            pair = self.levels(target), self.levels(reference.image)
            with torch.inference_mode():
                pyramid = self.pyramid(*pair, heat)
                maps.append(predicted(self.prompter.learner, pyramid, heat.shape[-1]))
        return torch.stack(maps).mean(0)[0]


def predicted(learner: Any, pyramid: Sequence[Tensor], side_px: int = 224) -> Tensor:
    """Probability of the foreground, (B, S, S)."""
    names = ("encoder_layer4", "encoder_layer3", "encoder_layer2")
    x4, x3, x2 = (block(x, getattr(learner, n)) for x, n in zip(pyramid, names, strict=True))
    x = block(resized(x4, x3.shape[2:4]) + x3, learner.encoder_layer4to3)
    x = block(resized(x, x2.shape[2:4]) + x2, learner.encoder_layer3to2)
    x = learner.decoder1(x.mean((-2, -1)))
    x = learner.decoder2(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))
    x = F.interpolate(x, (side_px, side_px), mode="bilinear", align_corners=True)
    return x.softmax(1)[:, 1]


def block(x: Tensor, layers: Any) -> Tensor:
    """Center-pivot convolutions, each as two of all taps, with group norm and ReLU."""
    for pivot, norm in zip(layers[0::3], layers[1::3], strict=True):
        b, c, ha, wa, hb, wb = x.shape
        kept = x[..., :: pivot.stride, :: pivot.stride]
        h, w = kept.shape[4:]
        over_a = pivot.conv1(kept.permute(0, 4, 5, 1, 2, 3).reshape(-1, c, ha, wa))
        over_b = pivot.conv2(x.permute(0, 2, 3, 1, 4, 5).reshape(-1, c, hb, wb))
        over_a = over_a.view(b, h, w, -1, ha, wa).permute(0, 3, 4, 5, 1, 2)
        x = over_a + over_b.view(b, ha, wa, -1, h, w).permute(0, 3, 1, 2, 4, 5)
        x = F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps).relu()
    return x


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """The target grid of each support cell."""
    b, c, ha, wa, hb, wb = x.shape
    flat = x.permute(0, 4, 5, 1, 2, 3).reshape(b * hb * wb, c, ha, wa)
    flat = F.interpolate(flat, tuple(size), mode="bilinear", align_corners=True)
    return flat.view(b, hb, wb, c, *size).permute(0, 3, 4, 5, 1, 2)


# --- rows


def hsnet_rows(folder: Path, speed: Speed) -> list[Row]:
    """ResNet-50 at 224 px, random weights."""
    torch.manual_seed(0)
    file = folder / "resnet50-random.pth"
    torch.save(timm.create_model("resnet50", pretrained=False).state_dict(), file)
    encoder, _ = timm_weights.load(f"path:{file}")
    cache = ArrayCache(folder / "cache")
    cold, warm, quick = (
        TimmBackbone(f"path:{file}", device="cpu", cache=c) for c in (None, cache, None)
    )
    cold.quick = warm.quick = False
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (224, 224, 3), np.uint8) for _ in range(12)]
    points = np.array([[60.0, 60.0], [60.0, 160.0], [160.0, 60.0], [160.0, 160.0]])
    objects = (Prompts(points, np.ones(4, bool)),)
    references = [Reference("r", image, objects) for image in images[:5]]
    plain, kept, halved = (SamicPrompter(b, settings=PAPER) for b in (cold, warm, quick))
    plain_backbone = copy.copy(cold)
    plain_backbone._encoder = encoder.eval()  # batch norms as they are
    literal = Literal(plain, plain_backbone._look)
    targets = itertools.cycle(images[5:])

    def ours(prompter: SamicPrompter, count: int, fixed: bool) -> Callable[[], Tensor]:
        def act() -> Tensor:
            target = images[5] if fixed else next(targets)
            return prompter.network_map(references[:count], target)

        return act

    new, known, five = "one new target, reference cached", "target features cached too", 5
    rows = []
    for what, count, prompter, aim, gflop16, gflop32 in (
        (new, 1, plain, ">= 2", 0, BACKBONE + PAIR),
        (f"{new}, 16 bits", 1, halved, ">= 3", BACKBONE, PAIR),
        (known, 1, kept, ">= 6", 0, PAIR),
        ("five references, new target", five, plain, ">= 7", 0, BACKBONE + five * PAIR),
        ("five references, new target, 16 bits", five, halved, ">= 7", BACKBONE, five * PAIR),
    ):
        found = prompter.network_map(references[:count], images[5])
        difference = float((found - literal.map(images[5], references[:count])).abs().max())
        whole = lambda n=count: literal.map(images[5], references[:n])  # noqa: E731
        times = paired(whole, ours(prompter, count, what == known), ROUNDS)
        limit = gflop16 / speed.bfloat16 + gflop32 / speed.float32
        rows.append(Row(what, *times, aim, f"{difference:.0e}", limit))
    return [*rows, step_row(literal, kept, references, images, STEP / speed.float32)]


def step_row(
    literal: Literal,
    prompter: SamicPrompter,
    references: list[Reference],
    images: list[np.ndarray],
    limit_s: float,
) -> Row:
    """A training step of four pairs."""
    truth = torch.cat([prompter.map_of(references[0].objects, (224, 224))] * 4)
    weights = dict.fromkeys(SALIENCY_LOSSES, 1.0)
    reference = prompter.prepare_reference(references[0], 1)
    targets = [prompter.prepare_target(image) for image in images[5:9]]
    plain_net, own_net = copy.deepcopy(prompter.learner), copy.deepcopy(prompter.learner)
    plain_adam = torch.optim.Adam(plain_net.parameters(), 1e-3, foreach=False, fused=False)
    own_adam = torch.optim.Adam(own_net.parameters(), 1e-3, fused=True)

    def plain() -> None:
        heat = literal.prompter.map_of(references[0].objects, (224, 224))
        pairs = [
            literal.pyramid(literal.levels(image), literal.levels(references[0].image), heat)
            for image in images[5:9]
        ]
        pyramid = [torch.cat(level).clone() for level in zip(*pairs, strict=True)]
        learn(plain_adam, predicted(plain_net, pyramid))

    def ours() -> None:
        pyramid = correlate(NormalizedFeatures.join(targets), NormalizedFeatures.join([reference]))
        learn(own_adam, own_net.predict(pyramid, (224, 224)))

    def learn(adam: Any, maps: Tensor) -> None:
        adam.zero_grad()
        saliency_loss(maps, truth, weights).backward()
        adam.step()

    times = paired(plain, ours, ROUNDS)
    return Row("training step, batch 4, features cached", *times, ">= 4", "", limit_s)


def propagate_rows(folder: Path, count: int, literal_count: int) -> list[Row]:
    """The packaged model with the paper's prompter: whole runs, and beside others."""
    scenes = sample_set()
    for i, scene in enumerate(scenes[:5]):
        write(folder / "references" / f"r{i}.tif", scene.image)
        write(folder / "masks" / f"r{i}.tif", scene.truth)
    turned = [
        np.ascontiguousarray(np.rot90(flipped, turns))
        for scene in scenes[5:]
        for flipped in (scene.image, scene.image[::-1])
        for turns in range(4)
    ]
    images = [np.roll(turned[i % len(turned)], 7 * (i // len(turned)), 1) for i in range(count)]
    for i, image in enumerate(images):
        write(folder / "images" / f"i{i:04d}.tif", image)
    file = folder / "p.pt"
    run_job(
        pipeline.train(
            folder / "references", masks=folder / "masks", out=file,
            prompter=PAPER, settings=TrainSettings(epochs=2), adapt=AdaptSettings(adapt=False),
        )
    )  # fmt: skip
    predictor = open_predictor(file, method="samic")
    few = images[:literal_count]
    seconds, masks = zip(*(literal_segment(predictor, image) for image in few), strict=True)
    plain = sum(seconds) / len(few) * count
    own = [predictor.segment_whole(image).labels > 0 for image in few]
    share = np.mean([a != b for a, b in zip(masks, own, strict=True)])
    difference, what = f"{100 * share:.1f} % of pixels", f"propagate {count} images"
    words = ("segment", folder / "images", "--prompter", file, "--method", "samic")
    home = folder / "home"
    first, second = (command(home, *words, "--out", folder / name) for name in ("first", "second"))
    alone = command(home, *words, "--out", folder / "alone")
    with busy(2):
        beside = command(home, *words, "--out", folder / "beside")
    return [
        Row(f"{what}, packaged model", plain, first, ">= 5", difference),
        Row(f"{what}, their features known", plain, second, ">= 15", difference),
        Row(f"{what}, beside two busy processes", 3 * alone, beside, ">= 1", ""),
    ]


def literal_segment(predictor: ImagePredictor, image: np.ndarray) -> tuple[float, np.ndarray]:
    """Seconds and the mask of an image; nothing that was computed before is known."""
    prompter, segmenter = predictor.prompter, predictor.segmenter

    def clear() -> None:
        for own in (segmenter, prompter.backbone.segmenter):  # type: ignore[attr-defined]
            forget(own)

    def look(picture: np.ndarray) -> Any:
        clear()
        return prompter.backbone.features(picture)

    begun = time.perf_counter()
    values = Literal(prompter, look).map(image, prompter.references).numpy()
    rows, columns = prompter._frame_part(image.shape)
    mask = np.zeros(image.shape[:2], bool)
    for prompts in prompter.proposal({1: values[:rows, :columns]}, image.shape).objects:
        clear()
        mask |= segmenter.segment(image, [prompts], settings=predictor.settings).labels > 0
    return time.perf_counter() - begun, mask


def vit_b_row(folder: Path) -> Row:
    """A second prompter over images that a first one has seen; vit_b with random weights."""
    torch.manual_seed(0)
    file = folder / "sam_vit_b-random.pth"
    torch.save(sam_model_registry["vit_b"]().state_dict(), file)
    segmenter = load_segmenter(f"path:{file}", device="cpu", cache=ArrayCache(folder / "vit_b"))
    scenes = sample_set()[:22]
    click = (Prompts(np.array([[100.0, 100.0]]), np.ones(1, bool)),)
    first, second = (SamicPrompter(SegmenterBackbone(segmenter), settings=PAPER) for _ in range(2))
    one, other = ([Reference(s.name, s.image, click)] for s in scenes[:2])

    def ours(prompter: SamicPrompter, references: list[Reference], image: np.ndarray) -> Any:
        prompter.network_map(references, image)
        return segmenter.segment(image, click).labels > 0

    def plain(image: np.ndarray) -> Any:
        def look(picture: np.ndarray) -> Any:
            forget(segmenter)
            return second.backbone.features(picture)

        Literal(second, look).map(image, other)
        forget(segmenter)
        return segmenter.segment(image, click).labels > 0

    for scene in scenes[2:]:
        ours(first, one, scene.image)
    begun = time.perf_counter()
    found = [ours(second, other, scene.image) for scene in scenes[2:]]
    seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    masks = [plain(scene.image) for scene in scenes[2:4]]
    literal_s = (time.perf_counter() - begun) / len(masks) * len(found)
    share = np.mean([a != b for a, b in zip(found, masks, strict=False)])
    what, difference = "vit_b, 20 images, second prompter", f"{100 * share:.1f} % of pixels"
    return Row(what, literal_s, seconds, ">= 20", difference)


def forget(segmenter: Any) -> None:
    """All that a segmenter knows of images."""
    segmenter._engine._recent.clear()
    segmenter._engine._cache = None


def write(path: Path, image: np.ndarray) -> None:
    """One TIFF, in a folder that is made."""
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, image)


def command(home: Path, *words: object) -> float:
    """Seconds of a command of napari-samic."""
    line = [sys.executable, "-m", "napari_samic", *map(str, words)]
    begun = time.perf_counter()
    subprocess.run(
        line, check=True, env={**os.environ, "NAPARI_SAMIC_HOME": str(home)}, capture_output=True
    )
    return time.perf_counter() - begun


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that do nothing but keep the processor busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()


# --- the table


def reached(dtype: torch.dtype) -> float:
    """GFLOP a second of a product of large matrices."""
    a = torch.randn(1536, 1536).to(dtype)
    seconds, _ = paired(lambda: a @ a, lambda: None, 9)
    return 2 * 1536**3 / seconds / 1e9


def table(rows: Sequence[Row]) -> str:
    head = "| | literal | ours | times | aim | difference | of limit |\n" + "|---" * 7 + "|\n"
    lines = []
    for row in rows:
        limit = f"{100 * row.limit_s / row.ours_s:.0f} %" if row.limit_s else ""
        lines.append(
            f"| {row.what} | {1e3 * row.plain_s:.0f} ms | {1e3 * row.ours_s:.0f} ms | "
            f"{row.ratio:.2f} | {row.aim} | {row.difference} | {limit} |\n"
        )
    return head + "".join(lines)


def fallen(rows: Sequence[Row], file: Path) -> list[str]:
    """Lines whose ratio is a fifth below that of an earlier table."""
    text = file.read_text() if file.is_file() else ""
    out = []
    for row in rows:
        match = re.search(rf"\| {re.escape(row.what)} \|[^|]*\|[^|]*\| ([\d.]+) \|", text)
        if match and row.ratio < (1 - FALL) * float(match.group(1)):
            out.append(f"{row.what}: {row.ratio:.2f}, was {match.group(1)}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--literal", type=int, default=12)
    args = parser.parse_args()
    default = Path(__file__).with_name("RESULTS.md")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        speed = Speed(reached(torch.float32), reached(torch.bfloat16))
        rows = hsnet_rows(folder, speed)
        print(table(rows), flush=True)
        rows += propagate_rows(folder, args.images, args.literal)
        print(table(rows[-3:]), flush=True)
        rows.append(vit_b_row(folder))
    text = table(rows)
    print(text)
    down = fallen(rows, args.out or default) if args.check else []
    if args.out:
        threads = torch.get_num_threads()
        about = (
            f"{threads} threads, {speed.float32:.0f} GFLOPS reached, {speed.bfloat16:.0f} in 16 "
            f"bits, torch {torch.__version__}."
        )
        args.out.write_text(
            f"# The literal pipeline against ours\n\n`benchmarks/baseline.py`: {about}\n\n{text}"
        )
    if down:
        sys.exit("slower than before: " + "; ".join(down))


if __name__ == "__main__":
    main()
