"""The benchmark of following: its sequences, its table, and data that are not there."""

import importlib
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
video = importlib.import_module("video")


def test_frames_fall_into_sequences_by_name():
    names = ["car-shadow_00000", "car-shadow_00003", "dog_00000"]
    assert video.sequences(names) == {"car-shadow": [0, 1], "dog": [2]}
    assert video.sequences(["0", "1", "17"]) == {"": [0, 1, 2]}


def test_table_has_the_mean_of_seeds_and_what_is_gained():
    def row(j):
        return {"J": j, "F": j, "objects": 0.0, "seconds": 1.0}

    seeds = [{video.FRAME: row(0.2), video.FOLLOW: row(j)} for j in (0.5, 0.7)]
    lines = video.table({"dog": seeds}).splitlines()
    cells = "0.200 0.200 0.000 1.000 | 0.600 0.600 0.000 1.000"
    assert lines[2] == f"| dog | {cells} | +40.0 |"
    assert lines[3] == f"| mean of 1 | {cells} | +40.0 |"


@pytest.mark.parametrize("arguments", [[], ["--sequences", "dog"]])
def test_missing_data_are_named_and_skipped(tmp_path, capsys, arguments):
    video.main(["--data", str(tmp_path / "none"), "--out", str(tmp_path / "out"), *arguments])
    assert capsys.readouterr().out == f"skipped: {tmp_path / 'none'} is not here\n"
    assert not (tmp_path / "out").exists()
