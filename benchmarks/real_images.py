"""The whole job on real images, by the shell: time and peak memory of each stage, and the scores.

    python benchmarks/real_images.py --set kvasir --references 176 --targets 120 --epochs 15
    python benchmarks/real_images.py --set nuclei --references 10

Reads ../shared/data and says so when it is not there. Nothing is left but --out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SETS = {"kvasir": "kvasir-seg-train880", "nuclei": "coelho2009-nuclei", "cvc": "cvc-clinicdb"}
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def lay_out(source: Path, out: Path, references: int, targets: int, seed: int) -> None:
    """Folders of links: references and targets, images and masks."""
    images = sorted((source / "images").iterdir())
    order = np.random.default_rng(seed).permutation(len(images))
    parts = {
        "references": order[:references],
        "targets": order[references : references + targets] if targets else order[references:],
    }
    for part, rows in parts.items():
        for kind in ("images", "masks"):
            (out / part / kind).mkdir(parents=True, exist_ok=True)
        for image in (images[i] for i in rows):
            mask = source / "masks" / f"{image.stem}.png"
            for kind, file in (("images", image), ("masks", mask)):
                link = out / part / kind / file.name
                if not link.exists():
                    link.symlink_to(file.resolve())


def stage(name: str, arguments: list[str]) -> dict[str, float]:
    """Run one command; seconds, peak memory of its process, and its own figures."""
    started = time.monotonic()
    command = [sys.executable, "-m", "napari_samic", *arguments, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        text = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        sys.exit(f"{name} ended with {process.returncode}")
    figures = json.loads(text)
    figures.pop("images", None)
    seconds, peak = time.monotonic() - started, usage.ru_maxrss / 1024
    summary = {
        k: round(v, 4) if isinstance(v, float) else v
        for k, v in figures.items()
        if k not in ("out", "failures", "skipped")
    }
    print(f"{name:10s} {seconds:7.1f} s  {peak:7.0f} MB  {summary}", flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=SETS, default="nuclei")
    parser.add_argument("--references", type=int, default=10)
    parser.add_argument("--targets", type=int, default=0, help="0: all others")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--union", action="store_true", help="one class instead of instances")
    parser.add_argument("--out", type=Path, default=Path(".work/real"))
    parser.add_argument("--train", nargs=argparse.REMAINDER, default=[], help="options of train")
    args = parser.parse_args()
    source = SHARED / SETS[args.set]
    if not source.is_dir():
        print(f"skipped: {source} is not on this machine")
        return
    out = args.out / f"{args.set}-{args.seed}"
    lay_out(source, out, args.references, args.targets, args.seed)
    references, targets = out / "references", out / "targets"
    prompts, prompter = out / "annotated" / "prompts.json", out / "prompter.pt"
    union = ["--no-instances"] if args.union else []
    commands = {
        "annotate": f"{references}/images --masks {references}/masks --simulate --overlay "
        f"--out {out}/annotated",
        "train": f"--images {references}/images --prompts {prompts} --out {prompter} "
        f"--epochs {args.epochs} --seed {args.seed}",
        "segment": f"{targets}/images --prompter {prompter} --out {out}/labels --overlay",
        "evaluate": f"--predictions {out}/labels --truth {targets}/masks --out {out}/metrics.json",
    }
    extra = {"train": args.train, "segment": union}
    for name, text in commands.items():
        stage(name, [name, *text.split(), "--overwrite", *extra.get(name, [])])


if __name__ == "__main__":
    main()
