"""What damaged and hostile input makes of us: anything but one of our own errors is a fault.

    python benchmarks/fuzz.py --seconds 600 --seed 0 --target images

Five targets: images' bytes, our JSON files, recipes, weights and prompter files, values of the
shell. A case is made from seed, target and number alone: `--case N` does one again, and the files
of a fault are kept in `--out`. A case may take `SLOWEST_S` seconds of the processor and
`MOST_BYTES` of memory.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
import yaml
from PIL import Image as PilImage

from napari_samic.core.errors import SamicError
from napari_samic.core.types import Prompts, Reference
from napari_samic.io.prompts import ImagePrompts, PromptFile, save_prompts

SLOWEST_S = 20
MOST_BYTES = 2**30
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 1e308, -1e-308, 0.5, "", "x", "0", "1e3",
    "../../x", "/etc/passwd", "C:\\x", "a\0b", "\ud800", "é" * 300, "path:x", [], {}, [[]],
    [1, "a"], {"a": {"b": []}}, "9" * 5000,
)  # fmt: skip
WORDS = (
    "", "0", "-1", "1", "0.5", "nan", "inf", "-inf", "1e400", "9" * 30, "x", "é", "a,b", "1,2",
    "2,0,1", ",", "=", "a=b", "train.epochs=x", "epochs=3", "true", "none", "auto", "cpu", "cuda",
    "mps", "tiny", "path:", "path:bad.pt", "bad.pt", "bad.json", "bad.yaml", "bad.tif", "ok.png",
    "empty", "missing", "missing/*.tif", "[", "*", "**", "~nobody/x", "ok", "r.yaml", "p.json",
    "a" * 300, "\udcff", "samic", "forest", "persam", "score", "auto,x", "folder", "kvasir-seg",
)  # fmt: skip


class TooLong(BaseException):
    """A case took more than its time."""


# --- what is damaged


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Bytes with a few places changed, taken out, doubled or cut off."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, length = rng.randrange(len(out) + 1), rng.choice((1, 1, 2, 4, 8, 64))
        how = rng.randrange(6)
        if how == 0:
            out[at : at + length] = rng.randbytes(length)
        elif how == 1:
            out[at : at + length] = rng.choice((b"\0", b"\xff", b"\x7f")) * length
        elif how == 2:
            del out[at : at + length]
        elif how == 3:
            out[at:at] = out[at : at + length]
        elif how == 4 and rng.random() < 0.3:
            del out[at:]
        elif out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
    return bytes(out)


def odd(rng: random.Random, tree: Any) -> Any:
    """A tree of plain values with one value replaced, taken out or moved."""
    if isinstance(tree, dict) and tree and rng.random() < 0.85:
        key = rng.choice(list(tree))
        out = {**tree, key: odd(rng, tree[key])}
        if rng.random() < 0.08:
            del out[key]
        elif rng.random() < 0.08:
            out[rng.choice(("x", "", "__class__", key.upper()))] = rng.choice(ODD)
        return out
    if isinstance(tree, list | tuple) and tree and rng.random() < 0.85:
        at = rng.randrange(len(tree))
        return [*tree[:at], odd(rng, tree[at]), *tree[at + 1 :]]
    return rng.choice(ODD)


def often(rng: random.Random, tree: Any) -> Any:
    """A tree with one to three odd values."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        tree = odd(rng, tree)
    return tree


# --- the five targets: each takes random numbers and an empty folder


def images(rng: random.Random, folder: Path) -> None:
    """Open an image of damaged bytes, read its planes, and read it as a mask."""
    from napari_samic.io.images import open_images
    from napari_samic.io.masks import read_labels
    from napari_samic.io.normalize import fit_normalization, read_rgb

    name = rng.choice(sorted(_pictures()))
    path = folder / name
    path.write_bytes(damaged(rng, _pictures()[name]))
    with _answered():
        planes = open_images(path)
        fitted = fit_normalization(planes[:2])
        for plane in planes[:3]:
            read_rgb(plane, fitted)
    with _answered():
        read_labels(path)


def our_json(rng: random.Random, folder: Path) -> None:
    """Read a prompt file, a review, a project's notes."""
    from napari_samic.gui.data import autosave, prompts_io
    from napari_samic.gui.data.project import Project
    from napari_samic.gui.state.annotator import AnnotationModel
    from napari_samic.io.prompts import load_prompts
    from napari_samic.io.reviews import load_review

    kind = rng.choice(("prompts", "review", "project"))
    path, state = folder / f"{kind}.json", AnnotationModel(lambda _: None)
    path.write_bytes(_text(rng, json.dumps(often(rng, _trees()[kind]))))
    with _answered():
        if kind == "prompts":
            prompts_io.take(state, load_prompts(path))
        elif kind == "review":
            load_review(path)
        else:
            project = Project.open(folder)
            autosave.recall(state, project.notes)
            autosave.model_of(project.notes)
            _steps_notes(project)


def _steps_notes(project: Any) -> None:
    """Read what each step of the window noted, as it does when the project is opened."""
    from napari_samic.gui.data.result_files import LabelFiles
    from napari_samic.gui.review import verdicts
    from napari_samic.gui.train import jobs
    from napari_samic.gui.train.progress import TrainingHistory

    notes = project.notes
    review = notes.get("review")
    verdicts.from_notes(review.get("opinions") if isinstance(review, dict) else None)
    LabelFiles(project.results_folder, notes).current_file("a")
    train = notes.get("train")
    train = train if isinstance(train, dict) else {}
    jobs.recalled(train.get("settings"))
    TrainingHistory.from_dict(train.get("curves"))
    jobs.PrompterComparison.from_dict(train.get("verdict"))


def recipes(rng: random.Random, folder: Path) -> None:
    """Read a recipe and say what a replay would do."""
    from napari_samic import recipes
    from napari_samic.core.types import run_job

    path = folder / "r.yaml"
    tree = often(rng, _trees()["recipe"])
    text = yaml.safe_dump(tree, sort_keys=False) if rng.random() < 0.8 else _recipe_text()
    path.write_bytes(_text(rng, text))
    with _answered():
        run_job(recipes.replay(path, dry_run=True))


def weights(rng: random.Random, folder: Path) -> None:
    """Read a file of weights, of a prompter, of a stopped training."""
    from napari_samic.models.finetune import checkpointing
    from napari_samic.models.hub import checkpoints
    from napari_samic.models.sam import segmenter
    from napari_samic.models.samic import serialization

    path = folder / rng.choice(("p.pt", "p.pth", "p.safetensors"))
    content = _prompter()
    if rng.random() < 0.6:
        buffer = io.BytesIO()
        torch.save(often(rng, content), buffer)
        path.write_bytes(buffer.getvalue())
    else:
        path.write_bytes(damaged(rng, _saved(path.suffix)))
    with _answered():
        serialization.describe(path)
        serialization.load(path, _backbone())
    with _answered():
        state = checkpoints.read(path)
        checkpoints.guess_arch(state, path.name)
    with _answered():
        checkpointing.Checkpoint(path, strict=True)
    with _answered():
        segmenter.build(f"path:{path}", device="cpu")


def shell(rng: random.Random, folder: Path) -> None:
    """Run a command of the shell with values that nobody would give; what is not one goes on."""
    from napari_samic import cli

    arguments = _command(rng, folder)
    (folder / "arguments.json").write_text(json.dumps(arguments), encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            cli.main(arguments)
    except SystemExit as end:
        if end.code not in (0, 1, 2, 3):
            raise AssertionError(f"exit code {end.code}") from end
    except TooLong:  # all of it was right, and it began to work
        pass
    finally:
        os.chdir(before)


TARGETS: dict[str, Callable[[random.Random, Path], None]] = {
    "images": images, "json": our_json, "recipes": recipes, "weights": weights, "shell": shell,
}  # fmt: skip


@contextmanager
def _answered() -> Iterator[None]:
    """Our own errors are the right answer."""
    try:
        yield
    except SamicError as error:
        if "\n" in str(error) or len(str(error)) > 5000:
            raise AssertionError(f"not one line: {str(error)[:200]!r}") from error


def _text(rng: random.Random, text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.05:
        opening, closing = rng.choice((("[", "]"), ('{"a":', "}"), ("- ", ""), ("{a: ", "}")))
        depth = rng.choice((30, 300, 900, 980, 1100, 100_000))
        deep = opening * depth + "1" + closing * depth
        places = [m.start() for m in re.finditer(r"\b(?:a|1|0\.5|tiny|true)\b", text)] or [0]
        at = rng.choice(places)
        return f"{text[:at].rstrip(chr(34))}{deep}{text[at + 1 :].lstrip(chr(34))}".encode()
    return damaged(rng, data) if rng.random() < 0.5 else data


# --- what is sound


_KEPT: dict[str, Any] = {}


def _kept(name: str, make: Callable[[], Any]) -> Any:
    if name not in _KEPT:
        _KEPT[name] = make()
    return _KEPT[name]


def _pictures() -> dict[str, bytes]:
    return _kept("pictures", _made_pictures)


def _made_pictures() -> dict[str, bytes]:
    gray = np.random.default_rng(0).integers(0, 255, (24, 32), np.uint8)
    color = np.stack([gray, gray[::-1], gray], 2)
    out = {}
    for suffix in ("png", "jpg", "bmp"):
        for name, pixels in (("grey", gray), ("colour", color)):
            buffer = io.BytesIO()
            PilImage.fromarray(pixels).save(buffer, {"jpg": "jpeg"}.get(suffix, suffix))
            out[f"{name}.{suffix}"] = buffer.getvalue()
    buffer = io.BytesIO()
    PilImage.fromarray(color).quantize(8).save(buffer, "png")
    out["palette.png"] = buffer.getvalue()
    stack = np.stack([gray] * 3).astype(np.uint16)
    for name, pixels, how in (
        ("plain", gray, {}), ("stack", stack, {}), ("packed", stack, {"compression": "zlib"}),
        ("lzw", gray, {"compression": "lzw", "predictor": True}), ("colour", color, {}),
        ("imagej", stack, {"imagej": True}),
        ("ome", stack, {"ome": True, "metadata": {"axes": "ZYX"}}),
        ("tiled", gray, {"tile": (16, 16)}), ("big", gray, {"bigtiff": True}),
        ("float", gray.astype(np.float32), {}), ("jpeg", gray, {"compression": "jpeg"}),
    ):  # fmt: skip
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels, **how)
        out[f"{name}.tif"] = buffer.getvalue()
    return out


def _trees() -> dict[str, Any]:
    return _kept("trees", _made_trees)


def _made_trees() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "p.json"
        save_prompts(path, _prompts())
        prompts = json.loads(path.read_text())
    verdict = {"verdict": "edited", "reason": "", "file": "a.tif", "sha256": "0" * 64,
               "objects": {"1": {"class": 1, "score": 0.5}}}  # fmt: skip
    review = {"format": "napari-samic/review", "version": 1,
              "images": {"a": verdict, "b": {"verdict": "accepted", "reason": "good"}}}  # fmt: skip
    image = {"name": "a", "path": "a.png", "reader": "napari", "sample": [], "files": ["a.png"]}
    edit = {"file": "a.tif", "sha256": "0", "objects": {"1": [1, 0.5]},
            "points": [[1, 2.0, 3.0, True]]}  # fmt: skip
    decision = {"verdict": "edited", "reason": "", "of": "0", "edit": edit}
    notes = {
        "step": "Train",
        "annotate": {"references": ["a"], "classes": {"1": {"name": "x", "colour": "#112233"}},
                     "model": "tiny", "images": [image], "image": "a"},
        "review": {"opinions": {"a": decision}, "current": "a"},
        "train": {"settings": {"TrainSettings": {"epochs": 3}}, "verdict": {"held_out": [1]},
                  "curves": {"losses": [[1, 0.5]], "scores": [[1, 0.5]]}},
    }  # fmt: skip
    project = {"format": "napari-samic/project", "version": 1, "notes": notes}
    return {"prompts": prompts, "review": review, "project": project, "recipe": _recipe()}


def _prompts() -> PromptFile:
    prompts = Prompts(
        np.array([[3.0, 4.0], [5, 6]]), np.array([True, False]), np.array([1.0, 1, 9, 9])
    )
    return PromptFile(
        (ImagePrompts("a", "a.png", (24, 32), "0" * 64, (prompts,), (0.5,), 2, 1.5),), "tiny",
        {"low": [0.0], "high": [255.0], "channels": [0], "channel_count": 1}, {1: "x"},
    )  # fmt: skip


def _recipe() -> dict[str, Any]:
    fingerprint = {"files": 1, "sha256": "0" * 64}
    return {"format": "napari-samic/recipe", "version": 1, "steps": [
        {"do": "annotate", "package": "0.1.0", "threads": 2, "out": "made",
         "inputs": {"images": "a.png", "prompts": "p.json"},
         "model": {"name": "tiny", "sha256": "0" * 64}, "settings": {"overlay": True}},
        {"do": "train", "inputs": {"images": ["a.png"], "masks": "made"}, "out": "p.pt",
         "settings": {"epochs": 2, "learning_rate": 0.1, "encoder": "path:x"},
         "data": {"images": fingerprint}},
        {"do": "segment", "inputs": {"images": "*.png", "prompter": "p.pt"}, "out": "results",
         "results": fingerprint},
        {"do": "accept", "inputs": {"results": "results", "review": "r.json"}, "out": "kept"},
        {"do": "export", "inputs": {"results": "kept"}, "out": "given", "settings": {"coco": True}},
        {"do": "evaluate", "inputs": {"predictions": "results", "truth": "t"}, "out": "e.json"},
    ]}  # fmt: skip


def _recipe_text() -> str:
    return yaml.safe_dump(_recipe(), sort_keys=False)


def _backbone() -> Any:
    return _kept("backbone", _made_backbone)


def _made_backbone() -> Any:
    from napari_samic.models.features import backbones
    from napari_samic.models.sam import segmenter

    return backbones.build("segmenter", segmenter.build("tiny", device="cpu"))


def _prompter() -> dict[str, Any]:
    return _kept("prompter", _packed_prompter)


def _packed_prompter() -> dict[str, Any]:
    from napari_samic.models.samic import serialization
    from napari_samic.models.samic.prompter import SamicPrompter

    prompter = SamicPrompter(_backbone())
    prompts = Prompts(np.array([[3.0, 4.0]]), np.array([True]))
    prompter.references = (Reference("a", np.zeros((24, 32, 3), np.uint8), (prompts,)),)
    return serialization.pack(prompter)


def _saved(suffix: str) -> bytes:
    return _kept(f"saved{suffix}", lambda: _made_file(suffix))


def _made_file(suffix: str) -> bytes:
    if suffix == ".safetensors":
        from safetensors.torch import save

        return save({"layer.weight": torch.zeros(4, 4), "layer.bias": torch.zeros(4)})
    buffer = io.BytesIO()
    content = _prompter() if suffix == ".pt" else {"a.weight": torch.zeros(3, 3)}
    torch.save(content, buffer, _use_new_zipfile_serialization=suffix == ".pt")
    return buffer.getvalue()


def _command(rng: random.Random, folder: Path) -> list[str]:
    """A command with some of its options, and values that may fit or not."""
    from typer.main import get_command

    from napari_samic import cli

    (folder / "empty").mkdir()
    (folder / "ok").mkdir()
    for path in (folder / "ok.png", folder / "ok" / "a.png"):
        path.write_bytes(_pictures()["grey.png"])
    save_prompts(folder / "p.json", _prompts())
    (folder / "r.yaml").write_text(_recipe_text(), encoding="utf-8")
    for name in ("bad.pt", "bad.json", "bad.yaml", "bad.tif"):
        (folder / name).write_bytes(rng.randbytes(50))
    command: Any = get_command(cli.app)
    out: list[str] = []
    while hasattr(command, "commands"):
        name = rng.choice(sorted(set(command.commands) - {"demo", "fetch"}))
        command, out = command.commands[name], [*out, name]
    for option in command.params:
        is_argument = option.param_type_name == "argument"
        if not (is_argument or option.required or rng.random() < 0.1):
            continue
        out += [] if is_argument else [rng.choice(option.opts)]
        if not getattr(option, "is_flag", False):
            out.append(_value(rng, option))
    return out


def _value(rng: random.Random, option: Any) -> str:
    if option.name == "out":  # nothing is to be written elsewhere
        return rng.choice(("out", "out/deep", "ok.png", "empty", "ok.png/x", "", "a\udcff"))
    if option.name == "record":
        return rng.choice(("new.yaml", "bad.yaml", "r.yaml", "ok", "ok.png/x.yaml"))
    choices = re.findall(r"One of (.*?)\.", option.help or "")
    if choices and rng.random() < 0.5:
        return str(rng.choice(choices[0].split(", ")))
    return rng.choice(WORDS)


# --- the run


def once(target: str, seed: int, case: int, folder: Path) -> str:
    """One case in an empty folder; what is wrong with the answer, or ""."""
    rng = random.Random(f"{seed} {target} {case}")
    signal.signal(signal.SIGPROF, _late)  # of the processor: others may be at work, too
    signal.setitimer(signal.ITIMER_PROF, SLOWEST_S)
    try:
        TARGETS[target](rng, folder)
    except TooLong:
        return f"{traceback.format_exc()}took more than {SLOWEST_S} s"
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ""


def _late(*_: Any) -> None:
    raise TooLong


def limit_memory() -> None:
    """Let this process take `MOST_BYTES` more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def fuzz(target: str, seed: int, seconds: float, out: Path) -> tuple[int, dict[str, str]]:
    """Cases for some seconds: how many, and one fault of each kind by its place in `out`."""
    faults: dict[str, str] = {}
    kinds: set[str] = set()
    until, case = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        fault = once(target, seed, case, folder)
        message = fault.strip().rpartition("\n")[2]
        where = re.findall(r'File "(.*?)", line (\d+)', fault)[-1:]
        if fault and f"{where} {message[:40]}" not in kinds:
            kinds.add(f"{where} {message[:40]}")
            place = out / f"{target}-{seed}-{case}"
            shutil.copytree(folder, place, dirs_exist_ok=True)
            (place / "fault.txt").write_text(fault, encoding="utf-8", errors="replace")
            faults[place.name] = message[:200]
        shutil.rmtree(folder, ignore_errors=True)
        case += 1
    return case, faults


def main(arguments: list[str] | None = None) -> int:
    """Run the targets, one after the other."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--target", choices=[*TARGETS, "all"], default="all")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="only this one, of one target")
    parser.add_argument("--out", type=Path, default=Path("fuzz-faults"), help="for faults' files")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    logging.disable()
    os.environ["NAPARI_SAMIC_HOME"] = tempfile.mkdtemp(prefix="fuzz-home-")
    _backbone()  # before the limit: torch reserves much
    if sys.platform == "linux":
        limit_memory()
    if given.case is not None:
        fault = once(given.target, given.seed, given.case, Path(tempfile.mkdtemp(prefix="fuzz-")))
        print(fault or "answered")
        return bool(fault)
    is_faulty = False
    for target in TARGETS if given.target == "all" else [given.target]:
        count, faults = fuzz(target, given.seed, given.seconds, given.out)
        print(f"{target}: {count} cases, {len(faults)} kinds of fault", flush=True)
        for name, message in faults.items():
            print(f"  {given.out / name}: {message}", flush=True)
        is_faulty = is_faulty or bool(faults)
    return int(is_faulty)


if __name__ == "__main__":
    sys.exit(main())
