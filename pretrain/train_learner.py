"""Episodic pretraining of the prompter's learner on top of the frozen packaged segmenter.

    python -m pretrain.train_learner --weights src/napari_samic/models/weights/tiny.pt \
        --pool pretrain/runs/pool --out pretrain/runs/learner --steps 1200

An episode is a reference and a target of one class: two pictures of one real set, or two scenes of
one family (same kinds of object on the same kind of ground; one kind is asked for, the others
distract). Features are taken once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch
from pretrain.data import SIDE
from torch.nn import functional as F

from napari_samic import heatmaps, losses, sambox, scenes
from napari_samic.models import starting, tiny
from napari_samic.models.correlation import Prepared, correlate, prepare_reference, prepare_target
from napari_samic.models.encode import GRIDS
from napari_samic.models.hsnet import HyperCorrelationLearner

MAP = 256


class Family:
    """Pictures that show one class: features, instance maps and their mean feature."""

    def __init__(self) -> None:
        self.levels: list[list[list[torch.Tensor]]] = []
        self.truth: list[np.ndarray] = []

    def centre(self, rows: list[int]) -> list[list[torch.Tensor]]:
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


def encode(network, image: np.ndarray) -> list[list[torch.Tensor]]:
    """Taps on grids of 32, 16 and 8, in half precision."""
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        _, taps = network.image_encoder.encode((x - network.pixel_mean) / network.pixel_std)
    return [
        [F.adaptive_avg_pool2d(t, min(g, t.shape[-1])).half() for t in level]
        for level, g in zip(taps, GRIDS, strict=True)
    ]


def real_families(network, pool: Path, per_set: int, rng) -> dict[str, Family]:
    """One family a real set (its most common class where there are several)."""
    rows = json.loads((pool / "rows.json").read_text())
    images, ids, classes = (
        np.load(pool / f"{n}.npy", mmap_mode="r") for n in ("images", "ids", "classes")
    )
    found: dict[str, Family] = {}
    order = rng.permutation(len(rows))
    for i in order:
        name = rows[i]["set"]
        if rows[i]["held_back"] or name in ("scenes", "chasedb1-retina"):
            continue
        present = [int(c) for c in np.unique(classes[i]) if c > 0]
        if name == "ccp-clothing":
            present = [c for c in present if (classes[i] == c).mean() > 0.01]
        for code in present[:3]:
            key = name if name != "ccp-clothing" else f"{name}-{code}"
            family = found.setdefault(key, Family())
            if len(family.truth) >= (per_set if name != "ccp-clothing" else 25):
                continue
            family.levels.append(encode(network, images[i]))
            family.truth.append(np.where(classes[i] == code, ids[i], 0).astype(np.int32))
    return {k: v for k, v in found.items() if len(v.truth) >= 4}


def scene_families(network, count: int, seed: int) -> dict[str, Family]:
    """Scenes of shared kinds, five a family."""
    out = {}
    for k in range(count):
        rng = np.random.default_rng([seed, k])
        ground = scenes.random_ground(rng)
        kinds = [
            scenes.random_kind(rng, small=rng.random() < 0.25) for _ in range(rng.integers(1, 4))
        ]
        if rng.random() < 0.4:
            kinds = [scenes.faint(x, ground, rng.uniform(0.35, 0.8)) for x in kinds]
        family = Family()
        for _ in range(5):
            counts = [int(rng.integers(1, 9)), *(int(rng.integers(0, 5)) for _ in kinds[1:])]
            scene = scenes.draw(
                rng,
                kinds,
                counts,
                ground,
                side=SIDE,
                overlap=0.15,
                blur_px=rng.uniform(0, 1.2),
                noise_sd=rng.uniform(0, 0.05),
                shadow=rng.uniform(0, 0.4),
            )
            truth = scene.truth(0)
            if truth.max() > 0:
                family.levels.append(encode(network, scene.image))
                family.truth.append(truth)
        if len(family.truth) >= 2:
            out[f"scenes-{k}"] = family
    return out


def heat_map(truth: np.ndarray, rng) -> torch.Tensor | None:
    """Map of one click an object near its deepest point; now and then of one more inside it."""
    points = []
    for mask in sambox.objects_of(truth, 24):
        points.append(sambox.inner_maximum(mask) + rng.normal(0, 1.0, 2))
        if rng.random() < 0.25:
            inside = np.argwhere(mask)
            points.append(inside[rng.integers(len(inside))])
    if not points:
        return None
    points = np.clip(np.array(points), 0, SIDE - 1)
    return torch.from_numpy(np.array(heatmaps.from_points(points, (MAP, MAP)).values))


def flip(levels, truth, code: int):
    """One of four mirror images of features and truth."""
    if code & 1:
        levels, truth = [[t.flip(-1) for t in v] for v in levels], truth[:, ::-1]
    if code & 2:
        levels, truth = [[t.flip(-2) for t in v] for v in levels], truth[::-1]
    return levels, np.ascontiguousarray(truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--pool", type=Path, default=Path("pretrain/runs/pool"))
    parser.add_argument("--out", type=Path, default=Path("pretrain/runs/learner"))
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--families", type=int, default=220)
    parser.add_argument("--per-set", type=int, default=120)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    torch.manual_seed(args.seed)
    network = tiny.load(args.weights)
    sha256 = hashlib.sha256(args.weights.read_bytes()).hexdigest()
    families = {
        **real_families(network, args.pool, args.per_set, rng),
        **scene_families(network, args.families, args.seed),
    }
    names = list(families)
    share = np.array([len(f.truth) ** 0.5 for f in families.values()])
    share /= share.sum()
    print(
        len(names),
        "families,",
        sum(len(f.truth) for f in families.values()),
        "pictures",
        flush=True,
    )
    learner = HyperCorrelationLearner((3, 5, 3))
    optimiser = torch.optim.Adam(learner.parameters(), lr=args.rate)
    average = {k: v.clone() for k, v in learner.state_dict().items()}
    start, recent = time.time(), []
    for step in range(1, args.steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = args.rate * 0.5 * (1 + np.cos(np.pi * step / args.steps))
        targets, references, wanted = [], [], []
        while len(targets) < 4:
            family = families[rng.choice(names, p=share)]
            a, b = rng.choice(len(family.truth), 2, replace=False)
            shown = rng.choice(
                len(family.truth), min(len(family.truth), int(rng.integers(1, 6))), replace=False
            )
            centre = family.centre(sorted({int(b), *map(int, shown)}))
            pair = []
            for row in (a, b):
                levels = [[t.float() for t in v] for v in family.levels[row]]
                levels, truth = flip(levels, family.truth[row], int(rng.integers(4)))
                pair.append((levels, heat_map(truth, rng)))
            if pair[0][1] is None or pair[1][1] is None:
                continue
            targets.append(prepare_target(pair[0][0], centre))
            references.append(prepare_reference(pair[1][0], pair[1][1][None], centre))
            wanted.append(pair[0][1])
        pyramid = correlate(Prepared.join(targets), Prepared.join(references))
        truth = torch.stack(wanted)
        predicted = learner.predict(pyramid, (MAP, MAP))
        loss = losses.saliency_loss(predicted, truth, cc_weight=0.5, nss_weight=0.2)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 5.0)
        optimiser.step()
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
            with (args.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            print(line, flush=True)
            torch.save(starting.pack(average, sha256), args.out / "samic.pt")


if __name__ == "__main__":
    main()
