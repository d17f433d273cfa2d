"""The fuzz: the same case again by its number, and a fault is caught and kept."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
fuzz = importlib.import_module("fuzz")


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_what_is_wrong_in_a_case_of_each_target_is_answered(target, tmp_path):
    for case in range(3):
        folder = tmp_path / str(case)
        folder.mkdir()
        assert fuzz.once(target, 0, case, folder) == ""
        assert any(folder.iterdir())


def test_case_is_the_same_again(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        fuzz.once("images", 3, 14, tmp_path / name)
    [one], [other] = (list((tmp_path / name).iterdir()) for name in "ab")
    assert (one.name, one.read_bytes()) == (other.name, other.read_bytes())


def test_foreign_exception_is_a_fault_whose_files_are_kept_once(tmp_path, monkeypatch):
    def broken(rng, folder):
        (folder / "input").write_text(str(rng.random()))
        raise KeyError("not ours")

    monkeypatch.setitem(fuzz.TARGETS, "images", broken)
    count, faults = fuzz.fuzz("images", 0, 0.2, tmp_path)
    assert count > 1
    assert list(faults) == ["images-0-0"]
    assert "KeyError" in (tmp_path / "images-0-0" / "fault.txt").read_text()
    assert (tmp_path / "images-0-0" / "input").is_file()
