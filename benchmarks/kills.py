"""Whether a command that is killed at any moment, and given again, ends as if nothing had happened.

    python benchmarks/kills.py --moments 30

Each command runs once undisturbed. Then, so many times, it is killed (SIGKILL) at a random moment
of that run and given again in the same place; labels, prompts, scores, exports and prompter files
must be those of the undisturbed run, but for times. What differs is told, and ends with 1.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

from napari_samic import pipeline, recipes
from napari_samic.core.settings import AdaptSettings, ExportSettings, TrainSettings
from napari_samic.core.types import run_job
from napari_samic.io.reviews import Verdict, save_review
from napari_samic.io.text_files import sha256_of
from napari_samic.models.finetune import checkpointing

SIDE_PX = 128
TIMES = {"seconds", "duration", "time"}
"""Keys and columns that may differ."""
EVERYTHING = ExportSettings(png=True, ome_zarr=True, coco=True, geojson=True, table=True)
Command = Callable[[Path], object]


def scene(seed: int) -> tuple[Any, Any]:
    """Discs on a noisy ground, (H, W) uint8, and their numbers, (H, W) uint16."""
    rng = np.random.default_rng(seed)
    image = rng.normal(40, 4, (SIDE_PX, SIDE_PX))
    labels = np.zeros((SIDE_PX, SIDE_PX), np.uint16)
    rows, columns = np.indices(labels.shape)
    for number, (row, column) in enumerate([(30, 30), (30, 90), (90, 30), (90, 90)], start=1):
        row, column = (int(v + rng.integers(-12, 13)) for v in (row, column))
        labels[(rows - row) ** 2 + (columns - column) ** 2 < 144] = number
    image[labels > 0] += 140
    return image.clip(0, 255).astype(np.uint8), labels


def data(folder: Path) -> None:
    """Images, a stack and masks; a prompter, results and a review of them; a recipe."""
    for i in range(9):
        image, labels = scene(i)
        for kind, pixels in (("images", image), ("masks", labels)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / kind / f"c{i}.tif", pixels)
    stack = np.stack([scene(20 + i)[0] for i in range(4)])
    tifffile.imwrite(folder / "images" / "stack.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    train(folder, folder / "p.pt", AdaptSettings(adapt=False), epochs=1)
    segment(folder, folder / "results")
    verdicts = {
        f"c{i}": Verdict("accepted", of=sha256_of(folder / f"results/c{i}.tif")) for i in range(9)
    }
    save_review(folder / "review.json", verdicts)
    recorded = folder / "recorded"
    annotate(folder, recorded / "a", record=folder / "recipe.yaml")
    segment(folder, recorded / "s", record=folder / "recipe.yaml")
    run_job(recipes.recorded(pipeline.export, folder / "recipe.yaml")(
        recorded / "s", out=recorded / "x", settings=EVERYTHING,
    ))  # fmt: skip


def annotate(folder: Path, out: Path, record: Path | None = None) -> object:
    images = [folder / "images" / f"c{i}.tif" for i in range(9)]
    job = recipes.recorded(pipeline.annotate, record)
    return run_job(job(images, masks=folder / "masks", simulate=True, out=out, device="cpu"))


def train(folder: Path, out: Path, adapt: AdaptSettings, epochs: int = 2) -> object:
    images = [folder / "images" / f"c{i}.tif" for i in range(4)]
    settings = TrainSettings(epochs=epochs, views=1)
    return run_job(pipeline.train(images, masks=folder / "masks", out=out, device="cpu",
                              settings=settings, adapt=adapt))  # fmt: skip


def segment(folder: Path, out: Path, record: Path | None = None) -> object:
    job = recipes.recorded(pipeline.segment, record)
    return run_job(job(folder / "images", prompter=folder / "p.pt", out=out, device="cpu"))


def commands(folder: Path) -> dict[str, Command]:
    """Each writes to the folder that it is given."""
    results, adapt_settings = folder / "results", AdaptSettings(adapt_steps=12)
    return {
        "segment": lambda out: segment(folder, out),
        "annotate": lambda out: annotate(folder, out),
        "train": lambda out: train(folder, out / "p.pt", adapt_settings),
        "export": lambda out: run_job(pipeline.export(results, out=out, settings=EVERYTHING)),
        "accept": lambda out: run_job(
            pipeline.accept(results, review=folder / "review.json", out=out)
        ),
        "run": lambda out: run_job(recipes.replay(folder / "recipe.yaml", out=out)),
    }


def started(command: Command, out: Path) -> int:
    """Process that runs a command; its words are kept in `out`.log."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with Path(f"{out}.log").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        command(out)
        code = 0
    except BaseException as error:
        print(type(error).__name__, error, flush=True)
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Its exit code, once it has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contents(folder: Path) -> dict[str, Any]:
    """All files by their names, without times and without the folder's own path."""
    files: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".pt":
            files[name] = timeless(torch.load(path, map_location="cpu", weights_only=True))
        elif path.suffix == ".tif":
            files[name] = tifffile.imread(path).tolist()
        elif path.suffix == ".sqlite":
            files[name] = ledger(path)
        elif path.suffix == ".json":
            files[name] = timeless(json.loads(path.read_text().replace(str(folder), "OUT")))
        elif path.suffix == ".csv":
            with path.open() as file:
                files[name] = timeless(list(csv.DictReader(file)))
        elif path.exists():  # not what SQLite has tidied away above
            files[name] = path.read_bytes()
    return files


def ledger(path: Path) -> list[Any]:
    """What it says of each image, but for times and how often it was tried."""
    images = "label, state, error, score, objects, runs.run, file, labels, inputs, heatmaps"
    with closing(sqlite3.connect(path)) as db:
        query = f"SELECT {images} FROM images JOIN runs ON runs.id = images.run ORDER BY label"
        left = db.execute("SELECT * FROM notes").fetchall()
        return db.execute(query).fetchall() + left


def timeless(tree: Any) -> Any:
    """Plain values without times; tensors as lists."""
    if isinstance(tree, dict):
        return {k: timeless(v) for k, v in tree.items() if k not in TIMES}
    if isinstance(tree, list | tuple):
        return [timeless(v) for v in tree]
    return tree.tolist() if isinstance(tree, torch.Tensor) else tree


def trial(command: Command, out: Path, after_s: float) -> tuple[bool, int]:
    """Kill a command after some time and give it again; whether it was killed, and how it ended."""
    child = started(command, out)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    was_killed = ended(child) == -signal.SIGKILL
    return was_killed, ended(started(command, out)) if was_killed else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--moments", type=int, default=3, help="of each command")
    parser.add_argument("--only", nargs="+", help="these commands")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    checkpointing.EVERY_S = 0.2
    bad = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        child = started(lambda _: data(folder), folder / "data")
        if ended(child):
            sys.exit((folder / "data.log").read_text())
        for name, command in commands(folder).items():
            if not args.only or name in args.only:
                bad += tried(
                    name, command, folder / "out" / name, args.moments, random.Random(args.seed)
                )
    sys.exit(bool(bad))


def tried(name: str, command: Command, place: Path, moments: int, chance: random.Random) -> int:
    """Try one command so many times; prints the counts and returns how many went wrong."""
    place.mkdir(parents=True)
    out = place / "straight"
    out.mkdir()
    began = time.monotonic()
    if ended(started(command, out)):
        sys.exit(Path(f"{out}.log").read_text())
    took, wanted = time.monotonic() - began, contents(out)
    killed = wrong = 0
    while killed < moments:
        out = place / "again"
        out.mkdir()
        after_s = chance.uniform(0, took)
        was_killed, code = trial(command, out, after_s)
        if was_killed:
            killed += 1
            resumed = contents(out)
            differ = [k for k in {**wanted, **resumed} if wanted.get(k) != resumed.get(k)]
            if code or differ:
                wrong += 1
                log_tail = Path(f"{out}.log").read_text().strip().splitlines()[-1:]
                print(f"{name}, killed after {after_s:.2f} s: exit {code}, {differ[:5]} {log_tail}")
        else:
            took = after_s  # the first run was slower
        shutil.rmtree(out)
        Path(f"{out}.log").unlink()
    print(f"{name}: killed {killed} times within {took:.1f} s, {wrong} wrong", flush=True)
    return wrong


if __name__ == "__main__":
    main()
