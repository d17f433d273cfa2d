"""Two Dask workers against one process: images a second, and what the cluster costs an image.

    python benchmarks/cluster.py --prompter FILE --images FOLDER --count 200 [--kill]

Segments --count images (those of FOLDER again and again under other names) in turn with: one
process that has one thread; one process as it is, which looks ahead in threads; and `--dask
local:2`. Labels must be the same. Times are of the command, from its begin to its end; images a
second leave out what the first image took, so loading networks and starting workers.

--kill: once more, with a scheduler and two workers of their own; workers are killed three times and
the scheduler once while it runs, and others are started. Labels must be the same again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from napari_samic import pipeline
from napari_samic.core.types import Job


def fill(folder: Path, source: Path, count: int) -> None:
    """Images under other names."""
    folder.mkdir()
    files = sorted(p for p in source.iterdir() if p.is_file())
    for number in range(count):
        file = files[number % len(files)]
        shutil.copyfile(file, folder / f"i{number:05d}{file.suffix}")


def hashes(folder: Path) -> dict[str, str]:
    """Of the label files."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.tif")}


def timed(job: Job[Any], at: dict[int, Any] | None = None) -> tuple[float, float]:
    """Seconds in all, and images a second after the first; calls `at[n]` once n are done."""
    begun, done, first = time.perf_counter(), 0, 0.0
    for step in job:
        if "plane" in step.data:
            done += 1
            first = first or time.perf_counter()
            if at and done in at:
                at.pop(done)()
    end = time.perf_counter()
    return end - begun, (done - 1) / (end - first)


class Machines:
    """A scheduler and two workers, which can be killed and come again."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.scheduler = self._scheduler()
        self.workers = [self._worker(), self._worker()]

    def _start(self, command: str, *words: str) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", f"distributed.cli.dask_{command}", *words, "--no-dashboard"]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(line, stderr=subprocess.DEVNULL, env=env)

    def _scheduler(self) -> subprocess.Popen[bytes]:
        return self._start("scheduler", "--host", "127.0.0.1", "--port", str(self.port))

    def _worker(self) -> subprocess.Popen[bytes]:
        return self._start("worker", self.address, "--nthreads", "1", "--no-nanny")

    def lose_worker(self) -> None:
        self.workers[0].kill()
        self.workers = [self.workers[1], self._worker()]

    def lose_scheduler(self) -> None:
        for process in (self.scheduler, *self.workers):
            process.kill()
            process.wait()
        self.scheduler = self._scheduler()
        self.workers = [self._worker(), self._worker()]

    def close(self) -> None:
        for process in (self.scheduler, *self.workers):
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompter", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--kill", action="store_true")
    args = parser.parse_args()
    import torch

    with tempfile.TemporaryDirectory() as temporary:
        images = Path(temporary) / "images"
        fill(images, args.images, args.count)
        rates: dict[str, float] = {}
        seen: list[dict[str, str]] = []

        def run(name: str, threads: int, at: dict[int, Any] | None = None, **more: Any) -> None:
            torch.set_num_threads(threads)
            out = Path(temporary) / name.replace(" ", "-")
            job = pipeline.segment(images, prompter=args.prompter, out=out, **more)
            seconds, rates[name] = timed(job, at)
            seen.append(hashes(out))
            same = "the same labels" if seen[-1] == seen[0] else "OTHER LABELS"
            print(f"{name:20s} {seconds:7.1f} s, {rates[name]:6.2f} images/s, {same}", flush=True)

        run("one thread", 1)
        run("two workers", 1, dask="local:2")
        run("two threads", 2)
        ratio = rates["two workers"] / rates["one thread"]
        cost = 1e3 * (1 / rates["two workers"] - 0.5 / rates["one thread"])
        print(f"two workers against one thread {ratio:.2f}, {cost:.0f} ms more an image than half")
        if args.kill:
            machines = Machines()
            share = args.count // 5
            at: dict[int, Any] = {share * n: machines.lose_worker for n in (1, 2, 4)}
            try:
                at[3 * share] = machines.lose_scheduler
                run("killed four times", 1, at, dask=machines.address)
            finally:
                machines.close()


if __name__ == "__main__":
    main()
