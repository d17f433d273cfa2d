"""Episodic pretraining of the prompter's learner on top of the frozen packaged segmenter.

    python -m pretrain.train_learner --weights pretrain/runs/tiny/tiny.pt \
        --pool pretrain/runs/pool --out pretrain/runs/learner --steps 1600

An episode is a reference and a target that show one kind: two pictures of one real set, or of one
procedural family (other kinds in it distract). Features are taken once.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch
from pretrain.batches import Pool
from pretrain.checks import encode as encode_picture
from torch.nn import functional as F

from napari_samic.core.settings import PrompterSettings
from napari_samic.evaluation.metrics import auc
from napari_samic.models import losses
from napari_samic.models.sam.encoding import GRIDS
from napari_samic.models.samic import pretrained
from napari_samic.models.samic.episodes import random_shift
from napari_samic.models.samic.hsnet import HyperCorrelationLearner
from napari_samic.models.samic.hypercorrelation import (
    NormalizedFeatures,
    correlate,
    prepare_reference,
    prepare_target,
)
from napari_samic.models.tiny import model
from napari_samic.ops import heatmaps, simulated_annotator

MAP = 256
WITHOUT = ("chasedb1-retina",)
"""One connected tree a picture: a click does not say what it is."""
KINDS = {"ccp-clothing": 25, "shapes": 70, "endoscopy": 60, "em": 10, "histology": 12}
PICTURES = {"ccp-clothing": 20}


class Family:
    """Pictures that show one class: features, instance maps and their mean feature."""

    def __init__(self) -> None:
        self.levels: list[list[list[torch.Tensor]]] = []
        self.truth: list[np.ndarray] = []

    def center(self, rows: list[int]) -> list[list[torch.Tensor]]:
        """Mean feature of some of its pictures, each (1, C, 1, 1)."""
        out = []
        for level in range(3):
            blocks = range(len(self.levels[0][level]))
            out.append(
                [
                    torch.stack(
                        [
                            self.levels[r][level][b].float().mean((-2, -1), keepdim=True)
                            for r in rows
                        ]
                    ).mean(0)
                    for b in blocks
                ]
            )
        return out


@torch.inference_mode()
def encode(network, image: np.ndarray) -> list[list[torch.Tensor]]:
    """Taps on grids of 32, 16 and 8, in half precision."""
    _, taps = encode_picture(network, image, network.image_encoder.img_size)
    return [
        [F.adaptive_avg_pool2d(t, min(g, t.shape[-1])).half() for t in level]
        for level, g in zip(taps, GRIDS, strict=True)
    ]


def families(network, pool: Pool, rng: np.random.Generator, most: int = 90) -> dict[str, Family]:
    """Pictures of one kind each: the kinds with the most pictures, and `most` of their pictures."""
    by_kind = {}
    for name, kinds in pool.sets.items():
        if name in WITHOUT:
            continue
        often = sorted(kinds, key=lambda k: -len(kinds[k]))[: KINDS.get(name, 25)]
        for kind in often:
            family = Family()
            for row in rng.permutation(kinds[kind])[: min(most, PICTURES.get(name, most))]:
                wanted = np.flatnonzero(pool.codes(int(row), kind) == 1)
                truth = np.array(pool.ids[row])[::2, ::2].astype(np.int32)
                truth = np.where(np.isin(truth, wanted), truth, 0)
                if truth.any():
                    family.levels.append(encode(network, pool.images[row]))
                    family.truth.append(truth)
            if len(family.truth) >= 2:
                by_kind[kind] = family
    return by_kind


def heat_map(truth: np.ndarray, rng) -> torch.Tensor | None:
    """Map of one click an object near its deepest point; now and then of one more inside it."""
    points = []
    for mask in simulated_annotator.objects_of(truth, 24):
        points.append(simulated_annotator.inner_maximum(mask) + rng.normal(0, 1.0, 2))
        if rng.random() < 0.25:
            inside = np.argwhere(mask)
            points.append(inside[rng.integers(len(inside))])
    if not points:
        return None
    points = np.clip(np.array(points), 0, MAP - 1)
    return torch.from_numpy(np.array(heatmaps.from_points(points, (MAP, MAP)).values))


def flip(levels, truth, code: int):
    """One of four mirror images of features and truth."""
    if code & 1:
        levels, truth = [[t.flip(-1) for t in v] for v in levels], truth[:, ::-1]
    if code & 2:
        levels, truth = [[t.flip(-2) for t in v] for v in levels], truth[::-1]
    return levels, np.ascontiguousarray(truth)


def episode(family: Family, rng: np.random.Generator, *, plain: bool = False):
    """Prepared target and reference, the target's map and mask; None if one shows nothing."""
    a, b = rng.choice(len(family.truth), 2, replace=False)
    others = rng.choice(
        len(family.truth), min(len(family.truth), int(rng.integers(1, 6))), replace=False
    )
    center = family.center(sorted({int(b), *map(int, others)}))
    pair, truths = [], []
    for row in (a, b):
        levels = [[t.float() for t in v] for v in family.levels[row]]
        levels, truth = flip(levels, family.truth[row], 0 if plain else int(rng.integers(4)))
        pair.append((levels, heat_map(truth, rng)))
        truths.append(truth > 0)
    if pair[0][1] is None or pair[1][1] is None:
        return None
    target, wanted = prepare_target(pair[0][0], center), pair[0][1][None]
    if not plain:
        target, wanted = random_shift(target, wanted, 0.3, rng)
    mode = PrompterSettings().mask_mode
    reference = prepare_reference(pair[1][0], pair[1][1][None], center, mask_mode=mode)
    return target, reference, wanted, truths[0]


def batch_of(training_kinds: dict[str, Family], rng: np.random.Generator, count: int):
    """Hypercorrelation and true maps of `count` episodes."""
    names = list(training_kinds)
    share = np.array([len(f.truth) ** 0.5 for f in training_kinds.values()])
    drawn = []
    while len(drawn) < count:
        kind = str(rng.choice(names, p=share / share.sum()))
        sample = episode(training_kinds[kind], rng)
        if sample is not None:
            drawn.append(sample)
    targets, references, wanted, _ = zip(*drawn, strict=True)
    return correlate(
        NormalizedFeatures.join(targets), NormalizedFeatures.join(references)
    ), torch.cat(wanted)


@torch.no_grad()
def validate(learner, state, held: dict[str, Family]) -> dict[str, float]:
    """On kinds and pictures that were held back: correlation with the true map, AUC of the mask."""
    judge, rng = copy.deepcopy(learner).eval(), np.random.default_rng(5)
    judge.load_state_dict(state)
    alike, ranked = [], []
    for family in held.values():
        for _ in range(4):
            sample = episode(family, rng, plain=True)
            if sample is not None:
                predicted = judge.predict(correlate(sample[0], sample[1]), (MAP, MAP))
                alike.append(float(losses.cc(predicted, sample[2]).mean()))
                ranked.append(auc(predicted.flatten(), torch.from_numpy(sample[3]).flatten()))
    return {
        "held_back_cc": round(float(np.mean(alike)), 4),
        "held_back_auc": round(float(np.mean(ranked)), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--pool", type=Path, default=Path("pretrain/runs/pool"))
    parser.add_argument("--out", type=Path, default=Path("pretrain/runs/learner"))
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--batch", type=int, default=8, help="episodes a step")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--start", type=Path, help="learner file to go on from")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    torch.manual_seed(args.seed)
    network = model.load(args.weights)
    sha256 = hashlib.sha256(args.weights.read_bytes()).hexdigest()
    training_kinds = families(network, Pool(args.pool, held_back=False), rng)
    held = families(network, Pool(args.pool, held_back=True), rng, most=8)
    pictures = sum(len(f.truth) for f in training_kinds.values())
    print(f"{len(training_kinds)} kinds, {pictures} pictures; {len(held)} held back", flush=True)
    fine, middle, coarse = (len(v) for v in network.image_encoder.backbone.layout.levels)
    learner = HyperCorrelationLearner((coarse, middle, fine))
    if args.start:
        state = torch.load(args.start, weights_only=True)["learner"]
        learner.load_state_dict({k: v.float() for k, v in state.items()})
    optimizer = torch.optim.Adam(learner.parameters(), lr=args.rate)
    average = {k: v.clone() for k, v in learner.state_dict().items()}
    start, recent = time.time(), []
    for step in range(1, args.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = args.rate * 0.5 * (1 + np.cos(np.pi * step / args.steps))
        pyramid, truth = batch_of(training_kinds, rng, args.batch)
        predicted = learner.predict(pyramid, (MAP, MAP))
        loss = losses.saliency_loss(predicted, truth, {"kld": 1.0, "cc": 0.5, "nss": 0.2})
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 5.0)
        optimizer.step()
        with torch.no_grad():
            for k, v in learner.state_dict().items():
                average[k].lerp_(v, max(0.01, 1 / step))
        recent.append((float(loss.detach()), float(losses.cc(predicted.detach(), truth).mean())))
        if step % 50 == 0 or step == args.steps:
            line = {
                "step": step,
                "s": round(time.time() - start),
                "loss": round(float(np.mean([r[0] for r in recent])), 4),
                "cc": round(float(np.mean([r[1] for r in recent])), 4),
            }
            recent = []
            if step % 300 == 0 or step == args.steps:
                line |= validate(learner, average, held)
            with (args.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            print(line, flush=True)
            torch.save(pretrained.pack(average, sha256), args.out / "samic.pt")


if __name__ == "__main__":
    main()
