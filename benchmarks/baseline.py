"""The literal pipeline against ours: how many times faster each step is, in one run.

    python benchmarks/baseline.py [--out benchmarks/RESULTS.md] [--check] [--images 12]

The literal form computes what the paper's reference code computes, as it does it: the backbone for
both images of each pair every time, batch norms as they are, all cells correlated, both halves of
each 4-D convolution at every tap, nothing kept, and the segmenter's encoder for each object. Ours
is what the package does. Both have the same weights (random ones where the network's name says so)
and are timed in turn, A B A B; the ratio is that of the medians. `difference` is the largest of the
two outputs. `of limit` is the share of the floating point operations that are needed at least, by
what a product of large matrices reaches here.

--out writes the table; --check compares with the table that is there, and ends with 1 if a ratio is
a fifth below it.
"""

from __future__ import annotations

import argparse
import copy
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_samic import pipeline
from napari_samic.core.settings import (
    AdaptSettings,
    PrompterSettings,
    SegmentSettings,
    TrainSettings,
)
from napari_samic.core.types import Prompts, Reference, run_job
from napari_samic.io.cache import ArrayCache
from napari_samic.models.features import timm_weights
from napari_samic.models.features.backbones import TimmBackbone
from napari_samic.models.losses import SALIENCY_LOSSES, saliency_loss
from napari_samic.models.samic.hypercorrelation import NormalizedFeatures, correlate
from napari_samic.models.samic.prompter import SamicPrompter
from napari_samic.pipeline.predictor import ImagePredictor
from napari_samic.pipeline.segment import open_predictor
from napari_samic.sample_data.samples import sample_set

ROUNDS, EPS, FALL = 5, 1e-5, 0.2
PAPER = PrompterSettings(mask_mode="faithful", centre=False)
GFLOP = {"target": 10.9, "cached": 2.8, "five": 8.17 + 5 * 2.8, "step": 27.7}
"""Needed at least: backbone 8.17, learner without dead taps 2.31, active correlation .45."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    plain_s: float
    ours_s: float
    aim: str
    difference: str
    gflop: float = 0.0

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


def hsnet_rows(folder: Path) -> list[Row]:
    """ResNet-50 at 224 px, random weights."""
    torch.manual_seed(0)
    file = folder / "resnet50-random.pth"
    torch.save(timm.create_model("resnet50", pretrained=False).state_dict(), file)
    encoder, _ = timm_weights.load(f"path:{file}")
    cache = ArrayCache(folder / "cache")
    cold, warm = (TimmBackbone(f"path:{file}", device="cpu", cache=c) for c in (None, cache))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (224, 224, 3), np.uint8) for _ in range(12)]
    points = np.array([[60.0, 60.0], [60.0, 160.0], [160.0, 60.0], [160.0, 160.0]])
    objects = (Prompts(points, np.ones(4, bool)),)
    references = [Reference("r", image, objects) for image in images[:5]]
    prompters = [SamicPrompter(b, settings=PAPER) for b in (cold, warm)]
    plain_backbone = copy.copy(cold)
    plain_backbone._encoder = encoder.eval()  # batch norms as they are
    literal = Literal(prompters[0], plain_backbone._look)
    targets = iter(images[5:] * 9)

    def ours(prompter: SamicPrompter, count: int, fixed: bool) -> Callable[[], Tensor]:
        def act() -> Tensor:
            target = images[5] if fixed else next(targets)
            return prompter.network_map(references[:count], target)

        return act

    rows = []
    for what, count, prompter, fixed, aim, gflop in (
        ("one new target, reference cached", 1, prompters[0], False, ">= 2", "target"),
        ("target features cached too", 1, prompters[1], True, ">= 6", "cached"),
        ("five references, new target", 5, prompters[0], False, ">= 7", "five"),
    ):
        found = prompter.network_map(references[:count], images[5])
        difference = float((found - literal.map(images[5], references[:count])).abs().max())
        plain = lambda n=count: literal.map(images[5], references[:n])  # noqa: E731
        times = paired(plain, ours(prompter, count, fixed), ROUNDS)
        rows.append(Row(what, *times, aim, f"{difference:.0e}", GFLOP[gflop]))
    return [*rows, step_row(literal, prompters[1], references, images)]


def step_row(
    literal: Literal, prompter: SamicPrompter, references: list[Reference], images: list[np.ndarray]
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
    return Row("training step, batch 4, features cached", *times, ">= 4", "", GFLOP["step"])


def propagate_rows(folder: Path, count: int) -> list[Row]:
    """The packaged model with the paper's prompter, one image after the other."""
    scenes = sample_set()
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    import tifffile

    for i, scene in enumerate(scenes[:5]):
        tifffile.imwrite(folder / "images" / f"r{i}.tif", scene.image)
        tifffile.imwrite(folder / "masks" / f"r{i}.tif", scene.truth)
    file = folder / "p.pt"
    run_job(
        pipeline.train(
            folder / "images", masks=folder / "masks", out=file,
            prompter=PAPER, settings=TrainSettings(epochs=2), adapt=AdaptSettings(adapt=False),
        )
    )  # fmt: skip
    plain_settings = SegmentSettings(tell_apart=False)  # which asks twice
    predictor = replace(open_predictor(file, method="samic"), settings=plain_settings)
    images = [np.ascontiguousarray(s.image) for s in scenes[5 : 6 + count]]
    figures = [image_times(predictor, image, images[0]) for image in images[1:]]
    plain, first, second, differ = (sum(column) for column in zip(*figures, strict=True))
    difference, what = f"{100 * differ / count:.1f} % of pixels", f"propagate {count} images"
    return [
        Row(f"{what}, packaged model", plain, first, ">= 5", difference),
        Row(f"{what}, their features known", plain, second, ">= 15", difference),
    ]


def image_times(
    predictor: ImagePredictor, image: np.ndarray, other: np.ndarray
) -> tuple[float, float, float, float]:
    """Seconds of an image: literal, ours, ours once its features are known; pixels that differ."""

    def clear() -> None:
        for own in (predictor.segmenter, predictor.prompter.backbone.segmenter):  # type: ignore[attr-defined]
            own._engine._recent.clear()

    def look(picture: np.ndarray) -> Any:
        clear()
        return predictor.prompter.backbone.features(picture)

    prompter = predictor.prompter
    begun = time.perf_counter()
    values = Literal(prompter, look).map(image, prompter.references).numpy()
    mask = np.zeros(image.shape[:2], bool)
    for prompts in prompter.proposal({1: values}, image.shape).objects:
        clear()
        mask |= (
            predictor.segmenter.segment(image, [prompts], settings=predictor.settings).labels > 0
        )
    out = [time.perf_counter() - begun]
    prompter.clear_caches()
    predictor.segment_whole(other)  # the references are known once a run has begun
    clear()
    for _ in range(2):
        begun = time.perf_counter()
        own = predictor.segment_whole(image).labels > 0
        out.append(time.perf_counter() - begun)
    return out[0], out[1], out[2], float((own != mask).mean())


# --- the table


def reached_gflops() -> float:
    """Of a product of large matrices."""
    a = torch.randn(1536, 1536)
    seconds, _ = paired(lambda: a @ a, lambda: None, 9)
    return 2 * 1536**3 / seconds / 1e9


def table(rows: Sequence[Row], gflops: float) -> str:
    head = "| | literal | ours | times | aim | difference | of limit |\n" + "|---" * 7 + "|\n"
    lines = []
    for row in rows:
        limit = f"{100 * row.gflop / gflops / row.ours_s:.0f} %" if row.gflop else ""
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
    parser.add_argument("--images", type=int, default=12)
    args = parser.parse_args()
    default = Path(__file__).with_name("RESULTS.md")
    with tempfile.TemporaryDirectory() as temporary:
        gflops = reached_gflops()
        rows = hsnet_rows(Path(temporary)) + propagate_rows(Path(temporary), args.images)
    text = table(rows, gflops)
    print(text)
    down = fallen(rows, args.out or default) if args.check else []
    if args.out:
        threads = torch.get_num_threads()
        about = f"{threads} threads, {gflops:.0f} GFLOPS reached, torch {torch.__version__}."
        args.out.write_text(
            f"# The literal pipeline against ours\n\n`benchmarks/baseline.py`: {about}\n\n{text}"
        )
    if down:
        sys.exit("slower than before: " + "; ".join(down))


if __name__ == "__main__":
    main()
