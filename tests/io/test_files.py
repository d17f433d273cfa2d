"""Files that are whole or not there, whatever happens to their writers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from napari_samic.io.files import atomic_file

KILLED = """
import os, sys
from napari_samic.io.files import atomic_file

with atomic_file(sys.argv[1], overwrite=True) as temporary:
    temporary.write_text("half")
    os._exit(9)
"""


def test_the_next_writer_takes_over_what_a_killed_one_left(tmp_path: Path) -> None:
    target = tmp_path / "prompter.pt"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    left = list(tmp_path.iterdir())
    assert len(left) == 1
    assert left[0] != target
    with atomic_file(target) as temporary:
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["prompter.pt"]
    assert target.read_text() == "whole"


def test_a_failed_writer_leaves_nothing(tmp_path: Path) -> None:

    def write() -> None:
        with atomic_file(tmp_path / "x") as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "x"
    with atomic_file(target, overwrite=True) as outer:
        outer.write_text("outer")
        with atomic_file(target, overwrite=True) as inner:
            assert inner != outer
            inner.write_text("inner")
        assert target.read_text() == "inner"
    assert target.read_text() == "outer"
    assert list(tmp_path.iterdir()) == [target]


def test_a_link_of_the_temporary_name_is_not_followed(tmp_path: Path) -> None:
    folder, victim = tmp_path / "folder", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("kept")
    with atomic_file(folder / "x") as temporary:
        pass
    (folder / "x").unlink()
    temporary.symlink_to(victim)
    with atomic_file(folder / "x") as other:
        other.write_text("new")
    assert victim.read_text() == "kept"
    assert (folder / "x").read_text() == "new"
