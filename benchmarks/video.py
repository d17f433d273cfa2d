"""Frame by frame against following: the first frame of each sequence is given, the others scored.

    python benchmarks/video.py --sequences blackswan car-shadow dog camel bmx-trees breakdance
    python benchmarks/video.py --data ../shared/data/isbi2012-em --sequences all --instances

SAMIC with the packaged model and first weights, no training: the first frame's simulated clicks are
the only reference. J is the IoU, F the boundary score of DAVIS, of the foreground; with
`--instances` also the F1 of objects. Reads ../shared/data and says so when it is not there.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from features import SHARED, Picture, Pool
from oneshot import Bench, samic

from napari_samic import pictures
from napari_samic.cache import ArrayCache
from napari_samic.contracts import Segmentation
from napari_samic.matching import match_objects
from napari_samic.metrics import boundary_f, iou
from napari_samic.models.backbones import SegmenterBackbone
from napari_samic.models.sam import build
from napari_samic.pipeline.follow import Follower
from napari_samic.settings import MemorySettings, SegmentSettings

FRAME, FOLLOW = "frame by frame", "following"
DAVIS = "davis16-val-sub3"
KEYS = ("J", "F", "objects")


def sequences(names: Sequence[str]) -> dict[str, list[int]]:
    """Numbers of the pictures of each sequence: `dog_00003` is of `dog`; all of `17` are of ``."""
    found: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        found.setdefault(re.sub(r"_?\d+$", "", name), []).append(number)
    return found


def one(
    bench: Bench, frames: Sequence[Picture], *, instances: bool, memory: MemorySettings
) -> tuple[dict[str, dict[str, float]], dict[str, list[Segmentation]]]:
    """Both ways on one sequence: mean scores, and the results of all frames but the first."""
    work, _ = samic(bench, frames[:1], train=False)
    settings = SegmentSettings(instances=instances)
    follower = Follower(work.prompter, work.segmenter, memory, settings)
    follower.begin(work.prompter.references[0])
    ways: dict[str, Callable[[Any], Segmentation]] = {
        FRAME: work.segment,
        FOLLOW: follower.segment,
    }
    scores, results = {}, {}
    for name, segment in ways.items():
        started = time.monotonic()
        results[name] = [segment(p.image) for p in frames[1:]]
        took = (time.monotonic() - started) / max(1, len(frames) - 1)
        rows = [scored(r, p) for r, p in zip(results[name], frames[1:], strict=True)]
        scores[name] = {k: float(np.mean([row[k] for row in rows])) for k in KEYS}
        scores[name]["seconds"] = took
    scores[FOLLOW]["remembered"] = float(len(follower.memory.references()[0]) - 1)
    return scores, results


def scored(result: Segmentation, picture: Picture) -> dict[str, float]:
    """J and F of the foreground, F1 of the objects."""
    found = result.labels > 0
    objects = match_objects(result.labels, picture.labels).f1
    return {"J": iou(found, picture.truth), "F": boundary_f(found, picture.truth), KEYS[2]: objects}


def table(rows: dict[str, list[dict[str, dict[str, float]]]]) -> str:
    """Markdown: a line for each sequence, means of the seeds; the mean of the sequences below."""
    lines = [f"| sequence | {FRAME}: J, F, objects, s | {FOLLOW}: J, F, objects, s | J&F gained |"]
    lines.append("|---|---|---|---|")
    every = []
    for name, seeds in rows.items():
        means = {
            way: {k: float(np.mean([s[way][k] for s in seeds])) for k in (*KEYS, "seconds")}
            for way in (FRAME, FOLLOW)
        }
        every.append(means)
        lines.append(_line(name or "all", means))
    overall = {
        way: {k: float(np.mean([m[way][k] for m in every])) for k in (*KEYS, "seconds")}
        for way in (FRAME, FOLLOW)
    }
    return "\n".join([*lines, _line(f"mean of {len(every)}", overall)])


def _line(name: str, means: dict[str, dict[str, float]]) -> str:
    cells = [" ".join(f"{means[w][k]:.3f}" for k in (*KEYS, "seconds")) for w in (FRAME, FOLLOW)]
    gain = [(means[w]["J"] + means[w]["F"]) / 2 for w in (FRAME, FOLLOW)]
    return f"| {name} | {cells[0]} | {cells[1]} | {100 * (gain[1] - gain[0]):+.1f} |"


def sheet(frames: Sequence[Picture], results: dict[str, list[Segmentation]]) -> Any:
    """Eight frames in order: alone above, followed below."""
    chosen = np.unique(np.linspace(0, len(frames) - 2, 8).astype(int)).tolist()
    tiles, captions = [], []
    for way in (FRAME, FOLLOW):
        for i in chosen:
            picture, result = frames[i + 1], results[way][i]
            shown = pictures.overlay(
                picture.image, result.labels, points=result.objects, truth=picture.truth
            )
            tiles.append(shown)
            captions.append(f"{way}, {picture.name}: {iou(result.labels > 0, picture.truth):.2f}")
    return pictures.contact_sheet(tiles, captions, columns=len(chosen), tile_px=240)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--data", type=Path, default=SHARED / DAVIS)
    parser.add_argument("--sequences", nargs="*", default=["all"], help="names, or all")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--instances", action="store_true", help="follow parts of a mask apart")
    parser.add_argument("--floor", type=float, default=MemorySettings().memory_floor)
    parser.add_argument("--frames", type=int, default=MemorySettings().memory_frames)
    parser.add_argument("--most", type=int, default=0, help="frames of a sequence; 0: all")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path(".work/video"))
    args = parser.parse_args(arguments)
    if not args.data.is_dir():
        print(f"skipped: {args.data} is not here")
        return
    args.out.mkdir(parents=True, exist_ok=True)
    pool = Pool(args.data)
    known = sequences([p.label for p in pool.planes])
    wanted = list(known) if args.sequences == ["all"] else args.sequences
    for name in (n for n in wanted if n not in known):
        print(f"skipped: {name}, known are {', '.join(known)}")
    with tempfile.TemporaryDirectory() as kept:
        segmenter = build(args.model, device=args.device, cache=ArrayCache(kept, 32 * 2**30))
        bench = Bench(segmenter, SegmenterBackbone(segmenter))
        text = report(args, bench, pool, {n: known[n] for n in wanted if n in known})
    print(text)
    (args.out / "video.md").write_text(text + "\n", encoding="utf-8")


def report(args: argparse.Namespace, bench: Bench, pool: Pool, chosen: dict[str, list[int]]) -> str:
    """All sequences and seeds; a line of each as it comes, and a sheet of the first seed."""
    memory = MemorySettings(follow="always", memory_floor=args.floor, memory_frames=args.frames)
    rows: dict[str, list[dict[str, dict[str, float]]]] = {}
    for name, numbers in chosen.items():
        frames = [pool[i] for i in numbers[: args.most or None]]
        for seed in args.seeds:
            bench.seed = seed
            scores, results = one(bench, frames, instances=args.instances, memory=memory)
            rows.setdefault(name, []).append(scores)
            print(_line(f"{name or 'all'}, seed {seed}", scores), flush=True)
            if seed == args.seeds[0]:
                picture = PIL.Image.fromarray(sheet(frames, results))
                picture.save(args.out / f"{name or 'all'}.png")
    return table(rows)


if __name__ == "__main__":
    main()
