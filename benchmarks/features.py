"""How good an encoder's features are for finding an object by an annotated picture.

    python benchmarks/features.py --model tiny --set kvasir --pairs 200

One-shot AUC of the cosine to a reference's prototype, and a linear probe. What is made of them is
what `napari-samic benchmark` measures. Reads ../shared/data and says so when it is not there.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_samic.benchmark.statistics import bootstrap_interval
from napari_samic.evaluation.metrics import auc
from napari_samic.io.cache import ArrayCache
from napari_samic.io.images import open_images
from napari_samic.io.masks import match_by_stem, read_mask
from napari_samic.io.normalize import fit_normalization, read_rgb
from napari_samic.models.features.backbones import SegmenterBackbone
from napari_samic.models.features.patches import PatchFeatures, center_of, upsample
from napari_samic.models.prompters.random_forest import per_class, sample_cells
from napari_samic.models.sam.segmenter import build

SETS = {"kvasir": "kvasir-seg-train880", "nuclei": "coelho2009-nuclei", "cvc": "cvc-clinicdb"}
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True, eq=False)
class Picture:
    """(H, W, 3) uint8 and its objects, (H, W) int32."""

    name: str
    image: Any
    labels: Any

    @property
    def truth(self) -> Any:
        """Union of the objects, (H, W) bool."""
        return self.labels > 0


class Pool:
    """Pictures of a folder with `images` and `masks`, read when asked for."""

    def __init__(self, folder: Path) -> None:
        self.planes = open_images(folder / "images")
        self.masks = match_by_stem(self.planes, folder / "masks")
        self.normalization = fit_normalization(self.planes)

    def __len__(self) -> int:
        return len(self.planes)

    def __getitem__(self, i: int) -> Picture:
        plane = self.planes[i]
        image = read_rgb(plane, self.normalization)
        mask = read_mask(plane, self.masks[plane.label], shape=image.shape)
        return Picture(plane.label, image, mask)


def look_at(backbone: Any, picture: Picture) -> PatchFeatures:
    """The picture on the backbone's grids, its objects as one class."""
    return PatchFeatures(backbone, picture.image, np.asarray(picture.truth, np.int32))


def truth_of(look: PatchFeatures) -> Any:
    """Cells of the finest grid that are mostly object, (r, c) bool."""
    return look.cropped(look.cover()[0] > 0.5).numpy()


def prototypes(look: PatchFeatures, center: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Of object and background, (C,) of length 1 a level; cells count by their share of each."""
    both: tuple[list[Tensor], list[Tensor]] = ([], [])
    for x, cover, (rows, columns) in zip(look.unit(center), look.cover(), look.valid, strict=True):
        cells, weight = x[:, :rows, :columns], cover[:rows, :columns]
        for kept, w in zip(both, (weight, 1 - weight), strict=True):
            kept.append(F.normalize((cells * w).sum((1, 2)), dim=0))
    return both


def cosines(
    look: PatchFeatures, wanted: Sequence[Tensor], center: Sequence[Tensor]
) -> list[Tensor]:
    """Likeness of every cell to a level's prototype, each (h, w) of the finest grid."""
    grid = look.last[0].shape[-2:]
    maps = [torch.einsum("c,chw->hw", w, x) for w, x in zip(wanted, look.unit(center), strict=True)]
    return [upsample(m[None], grid)[0] for m in maps]


def interval(values: Sequence[float], seed: int = 0) -> str:
    """Mean and its bootstrap 95 % interval."""
    kept = np.array(values)[~np.isnan(values)]
    if not len(kept):
        return "-"
    estimate = bootstrap_interval(kept, seed=seed)
    return f"{estimate.mean:.3f} ({estimate.low:.3f}-{estimate.high:.3f})"


def one_shot(backbone: Any, pool: Any, pairs: int, seed: int) -> dict[str, list[list[float]]]:
    """AUC of each pair: all levels together, then each one."""
    rng = np.random.default_rng(seed)
    shared = center_of([look_at(backbone, pool[int(i)]) for i in rng.permutation(len(pool))[:20]])
    rows: dict[str, list[list[float]]] = {}
    for _ in range(pairs):
        a, b = (look_at(backbone, pool[int(i)]) for i in rng.choice(len(pool), 2, replace=False))
        for name, center in (("the pair", center_of([a, b])), ("20 references", shared)):
            front, back = (cosines(b, p, center) for p in prototypes(a, center))
            contrast = [f - g for f, g in zip(front, back, strict=True)]
            for kind, maps in (("object", front), ("object less background", contrast)):
                all_maps = [torch.stack(maps).mean(0), *maps]
                aucs = [auc(b.cropped(m), truth_of(b)) for m in all_maps]
                rows.setdefault(f"{kind}, centred by {name}", []).append(aucs)
    return rows


def probe(backbone: Any, pool: Any, references: int, targets: int, seed: int) -> list[float]:
    """AUC of logistic regression on each picture that it did not learn from."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(seed)
    order = [int(i) for i in rng.permutation(len(pool))]
    support = [look_at(backbone, pool[i]) for i in order[: min(references, len(pool) // 2)]]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    most = per_class(len(support), (1,))
    model.fit(*sample_cells(support, (1,), rng, most=most, color=False))
    others = (look_at(backbone, pool[i]) for i in order[len(support) :][:targets])
    return [auc(model.decision_function(look.feature_matrix()), truth_of(look)) for look in others]


def table(backbone: Any, pool: Any, *, pairs: int, references: int, targets: int, seed: int) -> str:
    """Both figures in Markdown."""
    aucs = one_shot(backbone, pool, pairs, seed)
    grids = [x.shape[-1] for x in look_at(backbone, pool[0]).last]
    heads = ["likeness to", "all levels", *(f"grid {g}" for g in grids)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, values in aucs.items():
        cells = [interval(column) for column in zip(*values, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    linear = probe(backbone, pool, references, targets, seed)
    used = min(references, len(pool) // 2)
    text = f"Linear probe, {used} references, {len(linear)} others: {interval(linear)}"
    return "\n".join([*lines, "", text])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--set", choices=SETS, default="kvasir")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data", type=Path, default=SHARED)
    args = parser.parse_args(arguments)
    folder = args.data / SETS[args.set]
    if not folder.is_dir():
        print(f"skipped: {folder} is not here")
        return
    with tempfile.TemporaryDirectory() as kept:
        segmenter = build(args.model, device=args.device, cache=ArrayCache(kept, 32 * 2**30))
        figures = table(
            SegmenterBackbone(segmenter), Pool(folder), pairs=args.pairs, references=176,
            targets=100, seed=args.seed,
        )  # fmt: skip
    print(f"{args.set}, {args.model}, {args.pairs} pairs: AUC (95 % interval)\n\n{figures}")


if __name__ == "__main__":
    main()
