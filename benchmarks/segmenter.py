"""How well a promptable segmenter answers, with prompts simulated from the ground truth.

    python benchmarks/segmenter.py --model tiny --model vit_b --images 200 --out DIR
    python benchmarks/segmenter.py --sets kvasir --side 512 --speed --out DIR

Sets: kvasir, cvc, coelho; `heldback` is a row for each set in ../shared/data/pretrain, of
which only the pictures that pretraining keeps back are read, and the mean of these rows. A set that
is not on this machine is named and skipped. --images are drawn by --seed and read as the product
reads them: 8-bit color as it is, all else stretched between percentiles of its set.

Objects: of kvasir and cvc the 8-connected components of the mask > 127, without those under 0.2 %
of the image (if all are, the largest stays); of coelho the numbers in the mask; of held-back sets
what `pretrain.data.objects` says, at the picture's own resolution. Those under 30 px are left out.
At most --objects an image are drawn by the seed and the image's name, without replacement, with
weight area^0.5. An image without an object does not count.

Columns, means over objects (in the row of the mean: over sets); IoU at the image's own resolution:

- box: after the object's tight box (outer edges of its pixels, no noise), single mask.
- 1 click: after a positive click on the pixel farthest from the outline; the single mask, which is
  what the product takes (`SegmentSettings.mask_choice`). Best of three: of the three masks for the
  same click, the best by true IoU.
- 3 clicks, 5 clicks: each further click is `simulated_annotator.next_click`, the inner maximum of
  the largest 8-connected error, positive if missed, negative if too much; the earlier logits go
  back in as mask prompt. The last mask counts, not the best so far. A faultless mask gets no more
  clicks.
- clicks to 85 %: first number of clicks with an IoU of at least 0.85. A failure, never within
  --max-clicks, counts as --max-clicks; `failed` in the JSON file is the share of these.
- confidence error: mean |predicted IoU - true IoU| over an object's single masks, those of the box
  and of up to five clicks.

DIR/segmenter.json also holds 95 % intervals of box, 1 and 3 clicks from 1000 bootstrap draws of
images, and every object: clicks as [row, column, positive], the answers to its box, to its clicks
and the three to its first click as [true IoU, predicted IoU]. DIR/sheet.png: the first model's 12
best (above) and 12 worst objects by IoU after 3 clicks, from the sets in turn; truth green, answer
magenta, clicks numbered.

--speed: medians in ms on two threads, models in turn (A B A B), a new 512 x 512 picture each time
so that no cache can help: `precompute`, then `candidates` for one click. "x ViT-B": how many times
faster it encodes than segment_anything's ViT-B with random weights, timed in the same turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from napari_samic.core.errors import SamicError
from napari_samic.core.types import BoolArray, Candidates, Prompts
from napari_samic.evaluation.matching import as_instances
from napari_samic.evaluation.metrics import clicks_to, iou
from napari_samic.export.overlays import contact_sheet
from napari_samic.io.images import open_images
from napari_samic.io.normalize import fit_normalization, read_rgb
from napari_samic.models.hub import checkpoints, registry
from napari_samic.models.sam import segmenter as sam_segmenter
from napari_samic.models.tiny import model as tiny_model
from napari_samic.ops.simulated_annotator import inner_maximum, next_click

ROOT = Path(__file__).resolve().parents[1]
SETS = {
    "kvasir": ("kvasir-seg-train880", "polyp"),
    "cvc": ("cvc-clinicdb", "polyp"),
    "coelho": ("coelho2009-nuclei", "numbers"),
}
MIN_PX, MIN_FRAC, TARGET, SHOWN, TILE_PX = 30, 0.002, 0.85, 12, 320
COLUMNS = ["box", "1 click", "1 click, best of three", "3 clicks", "5 clicks", "clicks to 85 %"]
COLUMNS += ["confidence error", "failed"]
HEAD = ["set", "images", "objects", *COLUMNS[:-1]]
INTERVALS = ["box", "1 click", "3 clicks"]
HELD = "heldback/"
Source = tuple[str, Path, str]
"""Name of its row, folder, kind of its masks."""
Case = tuple[float, str, np.ndarray]
"""IoU after three clicks, caption, tile."""
GREEN, RED, MAGENTA = (60, 230, 60), (255, 60, 60), (255, 40, 255)


def pretraining() -> Any:
    """The module that says what is kept back; it is beside the package, not in it."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    from pretrain import data

    return data


@dataclass(eq=False)
class Trial:
    """One object: clicks (row, column, positive) and answers (true IoU, confidence)."""

    truth: BoolArray
    number: int
    box: tuple[float, float] = (0.0, 0.0)
    three: list[tuple[float, float]] = field(default_factory=list)
    clicks: list[tuple[float, float, bool]] = field(default_factory=list)
    answers: list[tuple[float, float]] = field(default_factory=list)
    mask_after_three: BoolArray | None = None  # clicks
    logits: Any = None

    def prompts(self) -> Prompts:
        points = np.array([c[:2] for c in self.clicks])
        return Prompts(points, np.array([c[2] for c in self.clicks]))

    def take(self, answer: Candidates, max_clicks: int) -> bool:
        """Note an answer and click again; False if there is nothing more to ask."""
        mask, self.logits = answer.masks[0], answer.logits[0]
        self.answers += judged(answer, self.truth)
        n = len(self.answers)
        self.mask_after_three = mask if n <= 3 else self.mask_after_three
        done = n >= max_clicks or (n >= 5 and max(self.ious) >= TARGET)
        click = None if done else next_click(mask, self.truth)
        if click is not None:
            self.clicks.append((float(click[0][0]), float(click[0][1]), bool(click[1])))
        return click is not None

    @property
    def ious(self) -> list[float]:
        return [a[0] for a in self.answers]

    def after(self, clicks: int) -> float:
        return self.ious[min(clicks, len(self.ious)) - 1]

    def figures(self, max_clicks: int) -> list[float]:
        """In the order of COLUMNS."""
        to_target = clicks_to(self.ious, TARGET, cap=max_clicks)
        error = np.mean([abs(a - b) for a, b in [self.box, *self.answers[:5]]])
        clicks = [self.after(1), max(self.three)[0], self.after(3), self.after(5)]
        return [self.box[0], *clicks, to_target, float(error), float(max(self.ious) < TARGET)]

    def record(self) -> dict[str, Any]:
        facts = {"object": self.number, "area_px": int(self.truth.sum()), "box": self.box}
        return facts | {"three": self.three, "clicks": self.clicks, "answers": self.answers}


def judged(answer: Candidates, truth: BoolArray) -> list[tuple[float, float]]:
    return [(iou(m, truth), float(s)) for m, s in zip(answer.masks, answer.scores, strict=True)]


def tight_box(truth: BoolArray) -> Prompts:
    rows, columns = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
    edges = [rows[0] - 0.5, columns[0] - 0.5, rows[-1] + 0.5, columns[-1] + 0.5]
    return Prompts(np.zeros((0, 2)), np.zeros(0, bool), np.array(edges))


def ask(segmenter: Any, image: np.ndarray, trials: list[Trial], max_clicks: int) -> None:
    """Fill the trials of one image; all its objects are asked for together."""
    boxes = [tight_box(t.truth) for t in trials]
    answers = segmenter.candidates(image, boxes, multimask=False)
    for trial, answer in zip(trials, answers, strict=True):
        trial.box = judged(answer, trial.truth)[0]
        row, column = inner_maximum(trial.truth)
        trial.clicks.append((float(row), float(column), True))
    threes = segmenter.candidates(image, [t.prompts() for t in trials], multimask=True)
    for trial, answer in zip(trials, threes, strict=True):
        trial.three = judged(answer, trial.truth)
    while trials:
        logits = [t.logits for t in trials]
        prompts = [t.prompts() for t in trials]
        answers = segmenter.candidates(image, prompts, multimask=False, logits=logits)
        both = zip(trials, answers, strict=True)
        trials = [trial for trial, answer in both if trial.take(answer, max_clicks)]


def instances(kind: str, mask: np.ndarray) -> np.ndarray:
    """Number of the object at each pixel, small ones left out."""
    least = MIN_PX
    if kind == "polyp":
        ids = as_instances(mask > 127)
        areas = np.bincount(ids.ravel())[1:]
        least = max(MIN_PX, min(MIN_FRAC * ids.size, areas.max(initial=0)))
    elif kind == "numbers":
        ids = mask.astype(int)
    elif kind == "pet":  # its border is counted in pixels of pretraining's size
        k = max(1, pretraining().SIDE // max(mask.shape))
        ids = pretraining().objects(kind, mask.repeat(k, 0).repeat(k, 1))[0][::k, ::k]
    else:
        ids = pretraining().objects(kind, mask)[0]
    return np.where(np.bincount(ids.ravel())[ids] >= least, ids, 0)


def drawn(ids: np.ndarray, most: int, seed: int, name: str) -> list[int]:
    """Numbers of the objects that are asked for."""
    numbers, areas = np.unique(ids[ids > 0], return_counts=True)
    weights = areas**0.5 / (areas**0.5).sum()
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return sorted(rng.choice(numbers, min(most, len(numbers)), replace=False, p=weights).tolist())


def pictures(
    source: Source, args: argparse.Namespace
) -> Iterator[tuple[str, np.ndarray, list[Trial]]]:
    """Name, image and objects of each picture of a set."""
    name, folder, kind = source
    planes = open_images(folder / "images")
    if name.startswith(HELD):
        planes = [p for p in planes if pretraining().is_held_back(p.name)]
    normalization = fit_normalization(planes) if planes else None
    order = np.random.default_rng(args.seed).permutation(len(planes))
    for plane in (planes[i] for i in sorted(order[: args.images])):
        mask = np.asarray(Image.open(folder / "masks" / f"{plane.name}.png"))
        ids = instances(kind, mask)
        numbers = drawn(ids, args.objects, args.seed, plane.name)
        if numbers and normalization:
            yield plane.name, read_rgb(plane, normalization), [Trial(ids == n, n) for n in numbers]


def sources(args: argparse.Namespace) -> list[Source]:
    """The sets that are here; names those that are not."""
    chosen: list[Source] = [(n, args.data / SETS[n][0], SETS[n][1]) for n in args.sets if n in SETS]
    if "heldback" in args.sets:
        for name, kind in pretraining().SETS.items():
            chosen.append((HELD + name, args.data / "pretrain" / name, kind))
    for name, folder, _ in chosen:
        if not folder.is_dir():
            print(f"skipped {name}: {folder} is not on this machine", flush=True)
    return [f for f in chosen if f[1].is_dir()]


def summary(name: str, images: list[list[Trial]], max_clicks: int) -> dict[str, Any]:
    """One row, and under `draws` its bootstrap over images, (1000, columns)."""
    values = [[t.figures(max_clicks) for t in trials] for trials in images]
    sums, counts = np.array([np.sum(v, 0) for v in values]), np.array([len(v) for v in values])
    picks = np.random.default_rng(0).integers(len(images), size=(1000, len(images)))
    draws = sums[picks].sum(1) / counts[picks].sum(1)[:, None]
    means = (sums.sum(0) / counts.sum()).tolist()
    row = {"set": name, "images": len(images), "objects": int(counts.sum()), "draws": draws}
    return row | dict(zip(COLUMNS, means, strict=True))


def mean_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    row: dict[str, Any] = {k: sum(r[k] for r in rows) for k in ("images", "objects")}
    row |= {k: np.mean([r[k] for r in rows], 0) for k in ("draws", *COLUMNS)}
    return {"set": "heldback, mean of sets"} | row


def with_intervals(row: dict[str, Any]) -> dict[str, Any]:
    """Plain values: the draws become intervals."""
    ends = np.percentile(row["draws"], [2.5, 97.5], axis=0).T.tolist()
    intervals = {c: e for c, e in zip(COLUMNS, ends, strict=True) if c in INTERVALS}
    plain = {k: float(row[k]) for k in COLUMNS}
    return {k: row[k] for k in HEAD[:3]} | plain | {"interval_95": intervals}


def markdown(rows: list[dict[str, Any]], head: list[str]) -> str:
    def cell(value: Any) -> str:
        return f"{value:.{2 if value > 1 else 3}f}" if isinstance(value, float) else str(value)

    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    lines += [[cell(row[k]) for k in head] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def keep(cases: list[Case], name: str, image: np.ndarray, trial: Trial) -> None:
    """Add an object's tile to those of its set, sorted, if it is of the best or worst."""
    score, full = trial.after(3), len(cases) >= 2 * SHOWN
    if full and cases[SHOWN - 1][0] <= score <= cases[SHOWN][0]:
        return
    cases.append((score, name, tile(image, trial)))
    cases.sort(key=lambda c: c[0])
    if full:
        del cases[SHOWN]


def sheet(sets: list[list[Case]]) -> np.ndarray:
    def in_turn(step: int) -> list[Case]:
        lists = [cases[::step] for cases in sets]
        return [cases[i] for i in range(2 * SHOWN) for cases in lists if i < len(cases)]

    best = sorted(in_turn(-1)[:SHOWN], key=lambda c: -c[0])
    taken = {id(c) for c in best}
    worst = [c for c in in_turn(1) if id(c) not in taken][:SHOWN]
    cases = [*best, *sorted(worst, key=lambda c: c[0])]
    words = ["best"] * len(best) + ["worst"] * len(worst)
    captions = [f"{word} {c[0]:.2f}  {c[1]}" for word, c in zip(words, cases, strict=True)]
    return contact_sheet([c[2] for c in cases], captions, columns=6, tile_px=TILE_PX)


def tile(image: np.ndarray, trial: Trial) -> np.ndarray:
    """The object's surroundings, enlarged: outlines of truth and answer, numbered clicks."""
    mask = (
        trial.mask_after_three if trial.mask_after_three is not None else np.zeros_like(trial.truth)
    )
    clicks = trial.clicks[: min(3, len(trial.answers))]
    where = trial.truth | mask
    where[tuple(np.array([c[:2] for c in clicks], int).T)] = True
    rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
    half = max(24.0, 0.65 * max(rows[-1] - rows[0], columns[-1] - columns[0]))
    middle = (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2
    top, left = (max(0, int(m - half)) for m in middle)
    window = np.s_[top : int(middle[0] + half) + 1, left : int(middle[1] + half) + 1]
    height, width = image[window].shape[:2]
    scale = TILE_PX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    out = np.array(Image.fromarray(image[window]).resize(size, Image.Resampling.BICUBIC))
    truth, answer = (np.array(Image.fromarray(m[window]).resize(size)) for m in (trial.truth, mask))
    out[ndimage.binary_dilation(truth, iterations=2) & ~truth] = GREEN
    out[answer & ~ndimage.binary_erosion(answer, iterations=2, border_value=1)] = MAGENTA
    picture = Image.fromarray(out)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(20)
    for number, (row, column, positive) in reversed(list(enumerate(clicks, 1))):
        y, x = (row + 0.5 - top) * scale, (column + 0.5 - left) * scale
        pen.ellipse((x - 5, y - 5, x + 5, y + 5), GREEN if positive else RED, "black")
        text, ink = f"{'+' if positive else '-'}{number}", {"stroke_width": 2, "stroke_fill": 0}
        right = x < out.shape[1] - 40
        pen.text(
            (x + 7 if right else x - 7, y), text, "white", font, "lm" if right else "rm", **ink
        )
    return np.array(picture)


def segmenter_of(name: str, side_px: int | None, device: str) -> sam_segmenter.SamSegmenter:
    """By name; a network of the tiny kind is rebuilt at `side_px` around the same weights."""
    if side_px is not None:
        content = checkpoints.read(registry.locate(name))
        if isinstance(content, dict) and content.get("kind") == tiny_model.KIND:
            content["config"]["side_px"] = side_px
            network = tiny_model.optimize_for_inference(tiny_model.unpack(content, name))
            sha = registry.weights_sha256(name)
            return sam_segmenter.SamSegmenter(network, name=name, weights_sha256=sha, device=device)
    return sam_segmenter.build(name, device=device)


def speed(models: list[sam_segmenter.SamSegmenter], repeats: int) -> list[dict[str, Any]]:
    """Medians in ms, in turn; the first turn is not counted."""
    from segment_anything import build_sam_vit_b

    fresh = sam_segmenter.SamSegmenter(
        build_sam_vit_b(), name="ViT-B, random", device=models[0].device
    )
    models, threads = [*models, fresh], torch.get_num_threads()
    torch.set_num_threads(2)
    prompt = [Prompts(np.array([[256.0, 256.0]]), np.array([True]))]
    times: list[tuple[list[float], list[float]]] = [([], []) for _ in models]
    for turn in range(repeats + 1):
        for model, (encodes, prompts) in zip(models, times, strict=True):
            rng = np.random.default_rng(turn)
            image = rng.integers(0, 256, (512, 512, 3), np.uint8)
            started = time.perf_counter()
            model.precompute(image)
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            between = time.perf_counter()
            model.candidates(image, prompt, multimask=False)
            encodes.append(1000 * (between - started))
            prompts.append(1000 * (time.perf_counter() - between))
    torch.set_num_threads(threads)
    medians = [[statistics.median(part[1:]) for part in pair] for pair in times]
    return [
        {"model": m.name, "side_px": m.side_px, "device": str(m.device)}
        | {"encode_ms": e, "prompt_ms": p, "x ViT-B": medians[-1][0] / e}
        for m, (e, p) in zip(models, medians, strict=True)
    ]


def run_model(segmenter: Any, test_sets: list[Source], args: argparse.Namespace) -> dict[str, Any]:
    """Rows, every object's figures, and the tiles of each set."""
    rows, objects, tiles = [], [], []
    for source in test_sets:
        name, folder, _ = source
        images, cases, started = [], [], time.monotonic()
        for stem, image, trials in pictures(source, args):
            ask(segmenter, image, trials, args.max_clicks)
            for trial in trials:
                short = folder.name.split("-")[0].rstrip("0123456789")
                keep(cases, f"{short}/{stem[:10]} #{trial.number}", image, trial)
                objects.append({"set": name, "image": stem, **trial.record()})
                trial.logits = trial.mask_after_three = None  # they would fill the memory
            images.append(trials)
        if images:
            rows.append(summary(name, images, args.max_clicks))
            tiles.append(cases)
        took = time.monotonic() - started
        print(f"{segmenter.name}, {name}: {len(images)} images, {took:.0f} s", file=sys.stderr)
    held = [r for r in rows if r["set"].startswith(HELD)]
    rows = [with_intervals(r) for r in [*rows, *([mean_row(held)] if held else [])]]
    return {"rows": rows, "objects": objects, "tiles": tiles}


def parsed(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--model", action="append", help="name or path:FILE; may be repeated")
    parser.add_argument("--sets", nargs="+", choices=[*SETS, "heldback"])
    parser.add_argument("--images", type=int, default=20, help="of each set, at most")
    parser.add_argument("--objects", type=int, default=4, help="of each image, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-clicks", type=int, default=20, help="also what a failure counts as")
    parser.add_argument("--side", type=int, help="input side for models of the tiny kind")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--repeats", type=int, default=5, help="of --speed")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=Path(".work/segmenter"))
    args = parser.parse_args(given)
    if args.max_clicks < 5 or min(args.images, args.objects, args.repeats) < 1:
        parser.error("--max-clicks starts at 5, --images, --objects and --repeats at 1")
    if args.side is not None and (args.side < 32 or args.side % 32):
        parser.error("--side must be a multiple of 32")
    args.sets, args.model = args.sets or [*SETS, "heldback"], args.model or ["tiny"]
    return args


def main(given: list[str] | None = None) -> None:
    args = parsed(given)
    test_sets = sources(args)
    models = [segmenter_of(name, args.side, args.device) for name in args.model]
    facts = f"seed {args.seed}; at most {args.images} images a set, {args.objects} objects an image"
    parts = [f"Mean IoU; {facts}; never 85 % counts as {args.max_clicks} clicks."]
    results, tiles = [], []
    for model in models if test_sets else []:
        result = run_model(model, test_sets, args)
        tiles.append(result.pop("tiles"))
        parts.append(f"## {model.name}, {model.side_px} px, {model.device}")
        parts.append(markdown(result["rows"], HEAD))
        about = {"name": model.name, "sha256": model.weights_sha256, "side_px": model.side_px}
        results.append({**about, **result})
    print("\n\n".join(parts), flush=True)
    save(args, parts, results, [])
    if tiles and tiles[0]:
        Image.fromarray(sheet(tiles[0])).save(args.out / "sheet.png")
    if args.speed:
        own = [segmenter_of(n, None, args.device) for n in args.model] if args.side else []
        own = [o for o, m in zip(own, models, strict=False) if o.side_px != m.side_px]
        timed = speed([*models, *own], args.repeats)
        parts += ["## Speed, two threads", markdown(timed, list(timed[0]))]
        print("", *parts[-2:], sep="\n\n")
        save(args, parts, results, timed)


def save(
    args: argparse.Namespace, parts: list[str], results: list[Any], timed: list[dict[str, Any]]
) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "segmenter.md").write_text("\n\n".join(parts) + "\n")
    options = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    content = {"options": options, "models": results, "speed": timed}
    (args.out / "segmenter.json").write_text(json.dumps(content))


if __name__ == "__main__":
    try:
        main()
    except SamicError as error:
        sys.exit(str(error))
