"""The shell's `benchmark`: the page names all there is, and bad input is told at once."""

import json
import re
from pathlib import Path

import pytest
from toys import write_scenes

from napari_samic.benchmark import datasets, methods


def test_page_on_settings_names_every_set_and_every_way():
    page = (Path(__file__).resolve().parents[2] / "docs" / "settings.md").read_text("utf-8")
    said = set(re.findall(r"[a-z0-9+-]+", page.partition("## What `benchmark` compares")[2]))
    assert [
        n for n in (*datasets.names(), *methods.names(), *methods.GROUPS) if n not in said
    ] == []


def test_a_table_is_printed_and_written(shell, toy, tmp_path):
    folder = write_scenes(tmp_path / "data", 6)
    options = ["--ways", "samic-first,prototypes", "--shots", "2", "--share", "0.4", "--model", toy]
    ran = shell("benchmark", "folder", "--data", folder, "--out", tmp_path / "out", *options)
    assert (ran.code, ran.err) == (0, "")
    assert "| prototypes |" in ran.out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [cell["method"] for cell in summary["cells"]] == ["samic-first", "prototypes"]


def test_ablation_prints_what_its_learners_cost(shell, toy, tmp_path):
    folder = write_scenes(tmp_path / "data", 6)
    options = ["--ways", "layers-1", "--shots", "2", "--share", "0.4", "--model", toy]
    options += ["--epochs", "1", "--targets", "1"]
    ran = shell("benchmark", "folder", "--data", folder, "--out", tmp_path / "out", *options)
    assert (ran.code, ran.err) == (0, "")
    told = json.loads((tmp_path / "out" / "costs.json").read_text())["ways"]["layers-1"]
    assert f"| layers-1 | {told['parameters']:,} | {told['ms']:.1f} |" in ran.out.splitlines()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        pytest.param(["--shots", "one"], "expected numbers, as 1,5,20", id="shots"),
        pytest.param(["--ways", "samci"], "unknown samci", id="way"),
        pytest.param(["--baseline", "paper", "--ways", "samic"], "not compared", id="baseline"),
    ],
)
def test_bad_options_are_told(shell, toy, tmp_path, given, text):
    folder = write_scenes(tmp_path / "data", 3)
    ran = shell("benchmark", "folder", "--data", folder, "--out", tmp_path / "out", *given)
    assert ran.code == 2
    assert text in " ".join(ran.err.split())


def test_lists_of_names_are_left_out(shell, toy, tmp_path):
    folder = write_scenes(tmp_path / "data", 6)
    options = ["--ways", "samic-first", "--shots", "1", "--share", "0.2", "--model", toy]
    (tmp_path / "seen.txt").write_text("p1\n\n p2 \nnobody\n")
    options += ["--data", folder, "--out", tmp_path / "out", "--without", tmp_path / "seen.txt"]
    ran = shell("benchmark", "folder", *options)
    assert "nobody (1 unknown)" in " ".join(ran.err.split())
    (tmp_path / "seen.txt").write_text("p1\n\n")
    (tmp_path / "more.txt").write_text(" p2 \n")
    options += ["--without", tmp_path / "more.txt"]
    assert shell("benchmark", "folder", *options).code == 0
    images = (tmp_path / "out" / "images.csv").read_text()
    assert ",p3," in images or ",p4," in images
    assert ",p1," not in images
    assert ",p2," not in images
