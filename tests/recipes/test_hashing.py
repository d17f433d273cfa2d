"""Hashes of names and contents, wherever the files are."""

import shutil

import pytest

from napari_samic.core.types import run_job
from napari_samic.recipes import hashing as room


@pytest.fixture
def folder(tmp_path):
    """Images and something that is none."""
    for name, text in {"a/2.png": "two", "a/10.png": "ten", "a/x.txt": "no image"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path / "a"


def of(source, **how):
    return run_job(room.fingerprint(room.files_of(source), **how))


def test_copy_elsewhere_has_the_same(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "b")
    (tmp_path / "b" / "y.txt").write_text("no image either")
    assert of(folder) == of(tmp_path / "b") == of(f"{folder}/*.png")
    assert of(folder).files == 2


def rename(folder):
    (folder / "2.png").rename(folder / "3.png")


def edit(folder):
    (folder / "2.png").write_text("Two")


def add(folder):
    (folder / "1.png").write_text("")


def swap(folder):
    (folder / "2.png").write_text("ten")
    (folder / "10.png").write_text("two")


@pytest.mark.parametrize("change", [rename, edit, add, swap])
@pytest.mark.parametrize("how", ["contents", "ends"])
def test_every_change_is_seen(folder, change, how):
    before = of(folder, hashed=how)
    change(folder)
    assert of(folder, hashed=how).sha256 != before.sha256


def test_large_sets_are_known_by_their_ends_and_say_so(folder, monkeypatch):
    monkeypatch.setattr(room, "FULL", 5)
    monkeypatch.setattr(room, "END", 2)
    (folder / "2.png").write_text("abcdef")
    before = of(folder)
    assert before.hashed == "ends"
    for text, is_same in (("abXXef", True), ("abcdeX", False), ("Xbcdef", False), ("abef", False)):
        (folder / "2.png").write_text(text)
        assert (of(folder) == before) is is_same
    assert of(folder, hashed="contents").hashed == "contents"


def test_zarr_folder_is_all_of_its_files(tmp_path):
    inner = tmp_path / "s.zarr" / "0" / "c"
    inner.mkdir(parents=True)
    (inner / "1").write_text("x")
    assert room.files_of(tmp_path / "s.zarr") == [("s.zarr/0/c/1", inner / "1")]


def test_file_that_vanished_is_left_to_the_job(folder):
    files = room.files_of(folder)
    (folder / "2.png").unlink()
    assert run_job(room.fingerprint(files)).files == 2


def test_steps_tell_of_every_file(folder):
    steps = []
    run_job(room.fingerprint(room.files_of(folder)), steps.append)
    assert [s.message for s in steps] == ["hashing 10.png", "hashing 2.png"]
