"""The package of examples/ is installed as a stranger's, and is there in shell and window."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import napari_samic
from napari_samic.core.settings import AdaptSettings, TrainSettings
from napari_samic.sample_data.samples import sample_set

EXAMPLE = Path(__file__).parents[2] / "examples" / "napari-samic-otsu"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that the example was installed into."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("example")
    source = folder / "source"  # pip leaves a build folder beside what it builds
    source.mkdir()
    for path in EXAMPLE.iterdir():
        if path.is_file():
            (source / path.name).write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--target", folder / "site"]
    subprocess.run([*pip, *options, source], check=True, timeout=120)
    return folder / "site"


@pytest.fixture
def installed(site, monkeypatch):
    monkeypatch.syspath_prepend(site)
    yield
    sys.modules.pop("napari_samic_otsu", None)


@pytest.fixture(scope="module")
def coins(tmp_path_factory):
    """Coins as files, two of them references, and a prompter of these."""
    folder = tmp_path_factory.mktemp("coins")
    for sample in sample_set("coins"):
        picture, truth = ("references", "masks") if sample.is_reference else ("images", "truth")
        for name in (picture, truth):
            (folder / name).mkdir(exist_ok=True)
        tifffile.imwrite(folder / picture / f"{sample.name}.tif", sample.image, photometric="rgb")
        tifffile.imwrite(folder / truth / f"{sample.name}.tif", sample.truth)
    napari_samic.train(
        folder / "references", masks=folder / "masks", out=folder / "coins.pt", device="cpu",
        settings=TrainSettings(epochs=1, views=1), adapt=AdaptSettings(adapt=False),
    )  # fmt: skip
    return folder


@pytest.mark.usefixtures("installed")
def test_example_is_listed_and_segments_coins(shell, coins, tmp_path):
    roles = {row["name"]: row["role"] for row in shell("models", "list", "--json").json}
    assert roles["otsu"] == "prompter"
    ran = shell("segment", coins / "images", "--prompter", coins / "coins.pt", "--method", "otsu",
                "--out", tmp_path / "labels")  # fmt: skip
    assert ran.code == 0, ran.err
    figures = napari_samic.evaluate(predictions=tmp_path / "labels", truth=coins / "truth").figures
    assert figures["object_f1"] > 0.8


@pytest.mark.usefixtures("installed")
def test_example_finds_dark_objects_where_references_are_dark():
    import napari_samic_otsu

    from napari_samic.core.types import Prompts, Reference

    image = np.full((40, 60, 3), 200, np.uint8)
    image[10:20, 10:30] = 60
    click = Prompts(points_rc=np.array([[15, 20]]), is_foreground=np.array([True]))
    (prompts,) = napari_samic_otsu.Otsu().propose((Reference("a", image, (click,)),), image).objects
    assert prompts.box_rc == pytest.approx([10, 10, 19, 29], abs=1)
    bright = napari_samic_otsu.Otsu().propose((), image).objects
    assert bright[0].box_rc == pytest.approx([0, 0, 39, 59])


@pytest.mark.usefixtures("installed")
def test_example_is_a_method_of_propagate(make_napari_viewer):
    pytest.importorskip("qtpy")
    from napari_samic.gui.plugin.commands import dock_of

    dock = dock_of(make_napari_viewer())
    dock.go_to("Propagate")
    method = dock.step.panel.method
    assert "otsu" in [method.itemText(i) for i in range(method.count())]
