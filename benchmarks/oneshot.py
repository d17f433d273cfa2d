"""How well K annotated pictures of a new domain segment its others, beside two plain ways.

    python benchmarks/oneshot.py --model tiny --set kvasir --shots 0 5 20 176 --seeds 0 1 2 \
        --targets 200 --out .work/oneshot
    python benchmarks/oneshot.py --features --set kvasir --pairs 200

SAMIC as the shell runs it (simulated clicks, default settings); PerSAM on the encoder's features; a
random forest on the encoder's cells (ilastik).
All see the same references, targets and features. K = 0 is one reference and no training.
Reads ../shared/data and says so when it is not there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import features
import numpy as np
import PIL.Image
from features import SETS, SHARED, Picture, Pool

from napari_samic import pictures, sambox
from napari_samic.cache import ArrayCache
from napari_samic.contracts import HeatMap, Prompts, Reference, run
from napari_samic.errors import PromptError
from napari_samic.metrics import dice, iou
from napari_samic.models import starting
from napari_samic.models.backbones import SegmenterBackbone
from napari_samic.models.episodes import Store, choose, views_of
from napari_samic.models.forest import Forest
from napari_samic.models.persam import Persam
from napari_samic.models.sam import build
from napari_samic.models.samic import SamicPrompter
from napari_samic.pipeline.worker import Worker
from napari_samic.settings import SegmentSettings, TrainSettings

FIRST, SAMIC, NEAREST, FOREST = "first weights", "SAMIC", "nearest neighbour", "random forest"
ALL, MIDDLE, TRUE = "everything", "SAM, middle click", "SAM, true clicks"

KEYS = ("iou", "dice", "empty")

Predict = Callable[[Picture], Any]
"""Picture to (H, W) bool."""
Maker = Callable[[], tuple[Predict, str]]
"""Learns, and says how it went."""


@dataclass
class Bench:
    """What the methods share."""

    segmenter: Any
    backbone: Any
    epochs: int = TrainSettings().epochs
    seed: int = 0
    annotated: dict[str, Reference] = field(default_factory=dict)

    def reference(self, picture: Picture) -> Reference:
        """Clicked by the simulated annotator, once a run."""
        if picture.name not in self.annotated:
            done = sambox.annotate_image(self.segmenter, picture.image, picture.labels)
            clicks = tuple(a.prompts for a in done)
            made = Reference(picture.name, picture.image, clicks, picture.labels)
            self.annotated[picture.name] = made
        return self.annotated[picture.name]


def drawn(
    count: int, pool: int, references: int, targets: int, seed: int
) -> tuple[list[int], list[int]]:
    """Numbers of references out of `pool` and of targets out of `count`, never the same picture.

    The first are nested in `references`, and the targets don't depend on it while both fit.
    `pool` is 0 when both come from one set.
    """
    order = [int(i) for i in np.random.default_rng(seed).permutation(count)]
    if pool:
        others = np.random.default_rng(seed).permutation(pool)[:references]
        return [int(i) for i in others], order[::-1][:targets]
    return order[:references], order[references:][::-1][:targets]


def samic(bench: Bench, shown: Sequence[Picture], *, train: bool) -> tuple[Worker, str]:
    """Fine-tuned, or with the packaged first weights and what training sets before its first step.

    Without training there is the references' own mean as the centre, and the references that
    training would keep.
    """
    references = [bench.reference(p) for p in shown]
    prompter = SamicPrompter(bench.backbone, seed=bench.seed)
    known = starting.give(prompter)
    note = "" if known else "random first weights"
    if train:
        how = TrainSettings(epochs=bench.epochs, seed=bench.seed)
        note = run(prompter.fit(references, how)).summary
    else:
        store = Store(prompter)
        if prompter.settings.centre:
            prompter.centre = store.centre(views_of(references, 1))
        prompter.references = choose(store, references, prompter.settings.keeps)
    return Worker(prompter, bench.segmenter, SegmentSettings()), note


def nearest(bench: Bench, shown: Sequence[Picture]) -> Predict:
    """PerSAM on the backbone's features: the most and the least alike place, three decodes."""
    return proposed(Persam(bench.segmenter, backbone=bench.backbone), shown)


def forest(bench: Bench, shown: Sequence[Picture], *, trees: int = 100) -> Predict:
    """Random forest on all blocks and the colour of the cells; no SAM."""
    grown = Forest(bench.segmenter, backbone=bench.backbone, trees=trees, seed=bench.seed)
    return proposed(grown, shown)


def proposed(prompter: Any, shown: Sequence[Picture]) -> Predict:
    """A prompter that makes its own masks; it learns from the references now."""
    references = [Reference(p.name, p.image, (), np.asarray(p.truth, np.int32)) for p in shown]
    prompter.shots.of(references)
    return lambda picture: prompter.propose(references, picture.image).answer.labels > 0


def clicked(bench: Bench, clicks: Callable[[Picture], Sequence[Prompts]]) -> Predict:
    """What the segmenter makes of clicks that no reference led to."""
    return lambda p: bench.segmenter.segment(p.image, clicks(p)).labels > 0


def middle_of(picture: Picture) -> tuple[Prompts, ...]:
    """One click in the middle of the image: what a learned map must beat."""
    return (Prompts(np.array(picture.truth.shape)[None] // 2, np.array([True])),)


def measure(predict: Predict, targets: Sequence[Picture]) -> dict[str, dict[str, float]]:
    """IoU and Dice of each picture's foreground, and whether nothing was found."""
    rows = {}
    for picture in targets:
        mask, truth = predict(picture), picture.truth
        scores = {"iou": iou(mask, truth), "dice": dice(mask, truth), "empty": not mask.any()}
        rows[picture.name] = {k: float(v) for k, v in scores.items()}
    return rows


def compared(
    bench: Bench, shots: int, shown: Sequence[Picture], targets: Sequence[Picture], first: bool
) -> tuple[list[dict[str, Any]], Worker]:
    """One row a method, and SAMIC's worker for the sheet."""
    workers: dict[str, Worker] = {}

    def by_samic(name: str) -> tuple[Predict, str]:
        work, note = samic(bench, shown, train=name == SAMIC and shots > 0)
        workers[name] = work
        return (lambda picture: work.segment(picture.image).labels > 0), note

    makers: dict[str, Maker] = {
        FIRST: lambda: by_samic(FIRST),
        SAMIC: lambda: by_samic(SAMIC),
        NEAREST: lambda: (nearest(bench, shown), ""),
        FOREST: lambda: (forest(bench, shown), ""),
    }
    if not first or not shots:
        del makers[FIRST]
    rows = [timed(bench, shots, name, make, targets) for name, make in makers.items()]
    return rows, workers[SAMIC]


def timed(
    bench: Bench, shots: int | None, name: str, make: Maker, targets: Sequence[Picture]
) -> dict[str, Any]:
    """One method's row; also printed."""
    started = time.monotonic()
    predict, note = make()
    fitted = time.monotonic()
    images = measure(predict, targets)
    ended = time.monotonic()
    mean = {k: float(np.mean([v[k] for v in images.values()])) for k in KEYS}
    took = f"{fitted - started:6.1f} + {ended - fitted:5.1f} s"
    which = "     " if shots is None else f"K {shots:3d}"
    line = f"seed {bench.seed}  {which}  {name:17s}  mIoU {mean['iou']:.3f}  {took}"
    print(f"{line}  {mean['empty']:4.0%} empty  {note}".rstrip(), flush=True)
    facts = {"seed": bench.seed, "shots": shots, "method": name, "note": note, **mean}
    return {**facts, "fit_s": fitted - started, "predict_s": ended - fitted, "images": images}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: mIoU with its deviation over the seeds, Dice, seconds of fitting and answering."""
    names = [n for n in (FIRST, SAMIC, NEAREST, FOREST) if any(r["method"] == n for r in rows)]
    lines = [f"| K | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for shots in sorted({r["shots"] for r in rows if r["shots"] is not None}):
        cells = []
        for name in names:
            found = [r for r in rows if (r["shots"], r["method"]) == (shots, name)]
            cells.append(_cell(found) if found else "-")
        lines.append(f"| {shots or '0 (one-shot)'} | {' | '.join(cells)} |")
    bounds = [(n, [r for r in rows if r["method"] == n]) for n in (ALL, MIDDLE, TRUE)]
    lines += ["", *(f"- {name}: {_cell(found)}" for name, found in bounds if found)]
    return "\n".join(lines)


def _cell(rows: Sequence[dict[str, Any]]) -> str:
    values = {k: np.array([r[k] for r in rows]) for k in (*KEYS, "fit_s", "predict_s")}
    spread = f" ± {values['iou'].std(ddof=1):.3f}" if len(rows) > 1 else ""
    fit, answer = (values[k].mean() for k in ("fit_s", "predict_s"))
    means = f"**{values['iou'].mean():.3f}**{spread}, Dice {values['dice'].mean():.3f}"
    return f"{means}, {values['empty'].mean():.0%} empty, {fit:.0f} + {answer:.0f} s"


def sheet(work: Worker, targets: Sequence[Picture], scores: dict[str, dict[str, float]]) -> Any:
    """Rows of the best, the middle and the worst: the result, and the map that led to it."""
    order = sorted(targets, key=lambda p: -scores[p.name]["iou"])
    middle = max(0, len(order) // 2 - 2)
    rows = {"best": order[:4], "median": order[middle : middle + 4], "worst": order[-4:]}
    tiles, captions = [], []
    for kind, shown in rows.items():
        for picture in shown:
            result = work.segment(picture.image)
            heat = result.heat_map or HeatMap(np.zeros(picture.truth.shape, np.float32))
            warm = heated(picture.image, heat.values)
            empty = np.zeros(picture.truth.shape, bool)
            tiles.append(_drawn(picture.image, result.labels > 0, result.objects, picture))
            tiles.append(_drawn(warm, empty, result.objects, picture))
            captions.append(f"{kind}: IoU {scores[picture.name]['iou']:.2f}")
            captions.append(f"map up to {heat.values.max():.2f}, {len(result.objects)} points")
    return pictures.contact_sheet(tiles, captions, columns=8, tile_px=288)


def _drawn(image: Any, mask: Any, objects: Any, picture: Picture) -> Any:
    return pictures.overlay(image, mask, points=objects, truth=picture.truth)


def heated(image: Any, values: Any) -> Any:
    """Map over the darkened grey picture: black, red, yellow, white up to its maximum."""
    share = (values / max(float(values.max()), 1e-6))[..., None]
    colour = 255 * np.clip(3 * share - np.arange(3), 0, 1)
    grey = image.mean(-1, keepdims=True) * 0.45
    return np.asarray(grey * (1 - share) + colour * share, np.uint8)


def report(args: argparse.Namespace, bench: Bench, pool: Pool, others: Pool | None) -> None:
    """All seeds and shots; what there is so far is written after each."""
    rows: list[dict[str, Any]] = []
    source = others or pool
    most = len(source) if others else len(pool) - 1
    for shots in (k for k in args.shots if k > most):
        print(f"skipped: K {shots}, {len(source)} pictures leave no target")
    asked = sorted(k for k in args.shots if k <= most)
    for seed in args.seeds if asked else ():
        bench.seed = seed
        wanted, count = max(1, *asked), len(others) if others else 0
        numbers, found = drawn(len(pool), count, wanted, args.targets, seed)
        shown, targets = _usable(bench, source, numbers), [pool[i] for i in found]
        rows += bounds(bench, targets)
        for shots in asked:
            if len(shown) < max(1, shots):
                print(f"skipped: K {shots}, {len(shown)} references show an object")
                continue
            more, work = compared(bench, shots, shown[: max(1, shots)], targets, args.first)
            rows += more
            write(args, bench, rows)
            if seed == args.seeds[0]:
                scores = next(r["images"] for r in more if r["method"] == SAMIC)
                picture = PIL.Image.fromarray(sheet(work, targets, scores))
                picture.save(args.out / f"sheet-{shots}.png")
    print(f"\n{write(args, bench, rows)}")


def bounds(bench: Bench, targets: Sequence[Picture]) -> list[dict[str, Any]]:
    """What needs no reference, below and above; targets are encoded before any method's time."""
    started = time.monotonic()
    for picture in targets:
        bench.backbone.features(picture.image)
    took = time.monotonic() - started
    print(f"seed {bench.seed}  {len(targets)} targets encoded in {took:.1f} s")
    ways: dict[str, Predict] = {
        ALL: lambda p: p.truth | True,
        MIDDLE: clicked(bench, middle_of),
        TRUE: clicked(bench, lambda p: sambox.prompts_of(p.labels)),
    }
    return [timed(bench, None, n, lambda p=way: (p, ""), targets) for n, way in ways.items()]


def write(args: argparse.Namespace, bench: Bench, rows: Sequence[dict[str, Any]]) -> str:
    """Table to oneshot.md, every picture's figures to oneshot.json; answers the table."""
    where = f"{args.set} (references: {args.references_from or args.set})"
    seeds, least = len({r["seed"] for r in rows}), min((len(r["images"]) for r in rows), default=0)
    head = f"{where}, {args.model}, {seeds} seed(s) of {least} targets"
    text = f"{head}: mIoU, Dice, nothing found, fit + answers\n\n{table(rows)}\n"
    (args.out / "oneshot.md").write_text(text, encoding="utf-8")
    facts = {"model": args.model, "weights_sha256": bench.segmenter.weights_sha256}
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    content = json.dumps({**facts, "settings": settings, "rows": list(rows)}, indent=1)
    (args.out / "oneshot.json").write_text(content, encoding="utf-8")
    return text


def _usable(bench: Bench, pool: Pool, numbers: Sequence[int]) -> list[Picture]:
    """Annotated now, so that no method's time counts it; pictures without an object are named."""
    out, started = [], time.monotonic()
    for i in numbers:
        picture = pool[i]
        try:
            bench.reference(picture)
            out.append(picture)
        except PromptError as error:
            print(f"left out: {picture.name}, {error}")
    took = time.monotonic() - started
    print(f"seed {bench.seed}  {len(out)} references clicked in {took:.1f} s", flush=True)
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--set", choices=SETS, default="kvasir")
    parser.add_argument("--references-from", choices=SETS, help="another set than the targets'")
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 5], help="0: one, untrained")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--targets", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=TrainSettings().epochs)
    parser.add_argument("--first", action="store_true", help="also K references, not fine-tuned")
    parser.add_argument("--features", action="store_true", help="only the encoder's features")
    parser.add_argument("--pairs", type=int, default=200, help="of the features part")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path(".work/oneshot"))
    parser.add_argument("--data", type=Path, default=SHARED)
    args = parser.parse_args(arguments)
    if any(k == 1 or k < 0 for k in args.shots):
        parser.error("--shots: 0, or 2 and more; each reference is searched in another")
    folders = [args.data / SETS[name] for name in (args.set, args.references_from) if name]
    for folder in folders:
        if not folder.is_dir():
            print(f"skipped: {folder} is not here")
            return
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as kept:
        segmenter = build(args.model, device=args.device, cache=ArrayCache(kept, 32 * 2**30))
        bench = Bench(segmenter, SegmenterBackbone(segmenter), args.epochs)
        others = Pool(folders[1]) if len(folders) > 1 and folders[1] != folders[0] else None
        pool = Pool(folders[0], others.normalisation if others else None)
        if not args.features:
            report(args, bench, pool, others)
            return
        figures = features.table(
            bench.backbone, pool, pairs=args.pairs, references=176, targets=100, seed=args.seeds[0]
        )
        text = f"{args.set}, {args.model}, {args.pairs} pairs: AUC (95 % interval)\n\n{figures}\n"
        print(text)
        (args.out / "features.md").write_text(text, encoding="utf-8")


class _Plain(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Examples as they stand, and every default."""


if __name__ == "__main__":
    main()
