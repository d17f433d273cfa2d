"""The fetched sample set, from an archive on this disk."""

import hashlib
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from napari_samic.core.errors import WeightsError
from napari_samic.core.types import run_job
from napari_samic.sample_data import kvasir


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))


def archive(folder, inner="Kvasir-SEG"):
    """As the authors pack theirs: three images of one size, one of another, masks as JPEG."""
    for number, size in enumerate([(40, 30), (40, 30), (20, 30), (40, 30)]):
        for kind, value in (("images", 40 * number), ("masks", 255 * (number % 2))):
            path = folder / "tree" / inner / kind / f"c{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(path)
    made = shutil.make_archive(str(folder / "set"), "zip", folder / "tree")
    return made, hashlib.sha256((folder / "set.zip").read_bytes()).hexdigest()


def put(monkeypatch, made):
    """As if the browser had fetched it, which the error message suggests."""
    kvasir.folder().parent.mkdir(parents=True)
    shutil.copy(made, kvasir.folder().parent / kvasir.ARCHIVE)


def test_archive_with_the_right_checksum_is_unpacked_and_removed(tmp_path, monkeypatch):
    made, sha256 = archive(tmp_path)
    put(monkeypatch, made)
    assert run_job(kvasir.fetch(sha256=sha256)) == kvasir.folder()
    assert kvasir.is_here()
    assert sorted(p.name for p in kvasir.folder().iterdir()) == ["images", "masks"]
    assert [p.name for p in kvasir.folder().parent.iterdir()] == ["kvasir-seg"]
    assert run_job(kvasir.fetch("https://nowhere.invalid")) == kvasir.folder()


def test_other_archive_is_refused_and_nothing_unpacked(tmp_path, monkeypatch):
    made, _ = archive(tmp_path)
    put(monkeypatch, made)
    with pytest.raises(WeightsError, match="Kvasir-SEG can't be fetched"):
        run_job(kvasir.fetch((tmp_path / "nothing.zip").as_uri(), "0" * 64))
    assert not kvasir.is_here()


def test_archive_of_another_make_is_said(tmp_path, monkeypatch):
    (tmp_path / "tree" / "pictures").mkdir(parents=True)
    made = shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path / "tree")
    put(monkeypatch, made)
    sha256 = hashlib.sha256((tmp_path / "set.zip").read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match="no folders images and masks"):
        run_job(kvasir.fetch(sha256=sha256))
    assert not kvasir.is_here()


def test_pairs_have_the_size_of_most(tmp_path, monkeypatch):
    made, sha256 = archive(tmp_path)
    put(monkeypatch, made)
    run_job(kvasir.fetch(sha256=sha256))
    assert [(i.name, m.name) for i, m in kvasir.pairs()] == [
        (f"c{n}.jpg", f"c{n}.jpg") for n in (0, 1, 3)
    ]


def test_layers_are_lazy_stacks_of_images_and_truth(tmp_path, monkeypatch):
    pytest.importorskip("dask")
    from napari_samic.gui.plugin.sample_data import kvasir_layers

    made, sha256 = archive(tmp_path)
    put(monkeypatch, made)
    run_job(kvasir.fetch(sha256=sha256))
    (images, options, _), (truth, _, kind) = kvasir_layers()
    assert (images.shape, options["rgb"], kind) == ((3, 30, 40, 3), True, "labels")
    assert truth.shape == (3, 30, 40)
    assert [int(np.asarray(truth[n]).max()) for n in range(3)] == [0, 1, 1]


def spoiled(folder, member, content):
    """The archive with one file more, and its checksum."""
    made, _ = archive(folder)
    with zipfile.ZipFile(made, "a", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(member, content)
    return made, hashlib.sha256((folder / "set.zip").read_bytes()).hexdigest()


@pytest.mark.parametrize("member", ["../../outside", "/outside", "Kvasir-SEG/../../../outside"])
def test_archive_unpacks_nothing_outside(tmp_path, monkeypatch, member):
    made, sha256 = spoiled(tmp_path, member, b"evil")
    put(monkeypatch, made)
    run_job(kvasir.fetch(sha256=sha256))
    assert not list(tmp_path.rglob("outside*"))


def test_link_in_an_archive_is_no_link_on_the_disk(tmp_path, monkeypatch):
    link = zipfile.ZipInfo("Kvasir-SEG/images/link.jpg")
    link.external_attr = 0o120777 << 16
    made, sha256 = spoiled(tmp_path, link, "/etc/passwd")
    put(monkeypatch, made)
    run_job(kvasir.fetch(sha256=sha256))
    assert not [p for p in kvasir.folder().rglob("*") if p.is_symlink()]


def test_zip_bomb_in_place_of_the_archive_is_not_unpacked(tmp_path, monkeypatch):
    made, sha256 = spoiled(tmp_path, "Kvasir-SEG/bomb", bytes(600_000_000))
    put(monkeypatch, made)
    with pytest.raises(WeightsError, match=r"unpacks to 600\d+ bytes"):
        run_job(kvasir.fetch(sha256=sha256))
    assert not kvasir.is_here()
