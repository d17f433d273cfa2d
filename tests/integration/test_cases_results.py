"""Cases of the shared folder on results: runs that are killed, and results that are stale.

A case is made by its own generator; without the shared folder these tests are skipped. Their
neighbours stand in `pipeline/test_loop.py` and `pipeline/test_stale.py`.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from toys import hidden_files

import napari_samic
from napari_samic.core.errors import StaleError
from napari_samic.core.settings import AdaptSettings, ExportSettings, PeakSettings, TrainSettings
from napari_samic.io.prompts import load_prompts

DYING = """
import os, signal, sys
from napari_samic.cli import main
from napari_samic.pipeline.predictor import ImagePredictor

look, left = ImagePredictor.extract_features, iter(range(5))
kind = int(sys.argv.pop())

def dies(self, image, references=()):
    if next(left, None) is None:
        os.kill(os.getpid(), kind)
    return look(self, image, references)

ImagePredictor.extract_features = dies
main(sys.argv[1:])
"""
"""The shell, which is sent a signal in the middle of its sixth image."""


def train(name, epochs=1, seed=0):
    napari_samic.train(
        "base/images", masks="base/masks", out=name, adapt=AdaptSettings(adapt=False), device="cpu",
        settings=TrainSettings(epochs=epochs, views=1, seed=seed),
    )  # fmt: skip


def segment(source, **options):
    return napari_samic.segment(
        source, **{"prompter": "p.pt", "out": "o", "device": "cpu"} | options
    )


def recorded():
    with Path("o/scores.csv").open() as file:
        in_scores = {row["image"] for row in csv.DictReader(file)}
    return in_scores, {image.name for image in load_prompts("o/prompts.json").images}


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_case_01_killed_run_loses_no_record(case, kind):
    case("01")
    train("p.pt")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = ["segment", "many", "--prompter", "p.pt", "--out", "o", "--device", "cpu"]
    ran = subprocess.run(
        [sys.executable, "-c", DYING, *command, str(int(kind))], env=environment, check=False
    )
    assert ran.returncode == (-signal.SIGKILL if kind == signal.SIGKILL else 130)
    assert len(list(Path("o").glob("*.tif"))) == 5
    outcome = segment("many")
    assert (len(outcome.skipped), len(outcome.done)) == (5, 7)
    names = {f"im{k:02d}" for k in range(12)}
    assert recorded() == (names, names)
    napari_samic.export_results("o", out="x", settings=ExportSettings(coco=True, table=True))
    assert len(json.loads(Path("x/coco.json").read_text())["images"]) == 12
    assert not hidden_files("o")


def test_case_10_stale_results_are_named_or_made_again(case):
    case("10")
    train("p.pt")
    assert len(segment("s1").done) == 3
    shutil.copy("many/im07.tif", "s1/im01.tif")
    outcome = segment("s1")
    assert outcome.done == ("im01",)
    assert "im01" in outcome.notices[0]
    train("p2.pt", epochs=2, seed=7)
    with pytest.raises(StaleError, match="another prompter"):
        segment("s1", prompter="p2.pt")
    with pytest.raises(StaleError, match="threshold"):
        segment("s1", peaks=PeakSettings(threshold=0.95))
    with pytest.raises(StaleError, match="matcher"):
        segment("s1", method="matcher")
