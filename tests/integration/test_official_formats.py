"""Networks by files of the official formats, random weights: the whole way."""

import hashlib
import json

import numpy as np
import pytest
import tifffile
import timm
import torch
from toy_sam import official_state, vit_b
from toys import SHAPE, write_scenes

from napari_samic.models.samic import serialization


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A home of its own, and two pictures with masks."""
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))
    return write_scenes(tmp_path, 2)


def save(state, path):
    torch.save(state, path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return path, digest.hexdigest()


def timm_file(folder, network, name):
    """As timm and torchvision publish theirs: a plain state dict, with the classifier."""
    torch.manual_seed(0)
    return save(timm.create_model(network, pretrained=False).state_dict(), folder / name)


def sam_file(folder, side_px=1024):
    """As sam_vit_b_01ec64.pth: a plain state dict of image encoder, prompt encoder, decoder."""
    return save(official_state(*vit_b(side_px)), folder / "sam_vit_b.pth")


def whole_way(shell, world, model, *options):
    """Annotate, train for an epoch, segment; all must end with 0. The prompter file."""
    images, out = world / "images", world / "out"
    for command in (
        ["annotate", images, "--masks", world / "masks", "--simulate", "--max-clicks", "1",
         "--out", out / "a", "--model", model],
        ["train", "--images", images, "--prompts", out / "a" / "prompts.json", "--epochs", "1",
         "--out", out / "p.pt", "--model", model, *options],
        ["segment", images, "--prompter", out / "p.pt", "--out", out / "s", "--heatmaps"],
    ):  # fmt: skip
        ran = shell(*command)
        assert (ran.code, ran.complaints) == (0, []), command
    for name in ("p0", "p1"):
        labels = tifffile.imread(out / "s" / f"{name}.tif")
        assert (labels.dtype, labels.shape) == (np.int32, SHAPE)
        assert tifffile.imread(out / "s" / "heatmaps" / f"{name}.tif").shape == SHAPE
    return out / "p.pt"


def test_resnet50_imported_by_path_with_its_hash(shell, world, toy):
    path, sha256 = timm_file(world, "resnet50", "weights.pth")
    ran = shell("models", "import", path, "--name", "mynet", "--arch", "resnet50",
                "--sha256", sha256)  # fmt: skip
    assert (ran.code, ran.out) == (0, f"mynet: imported as encoder, sha256 {sha256}\n")
    made = whole_way(shell, world, toy, "--encoder", "mynet", "--no-adapt")
    header = serialization.describe(made)["backbone"]
    assert (header["kind"], header["sha256"]) == ("mynet", sha256)


@pytest.mark.parametrize(
    ("network", "file"),
    [
        pytest.param("test_resnet", "test_resnet-1.pth", id="small_resnet"),
        pytest.param("test_convnext", "test_convnext_1k.pth", id="small_convnext"),
        pytest.param("vit_tiny_patch16_224", "vit_tiny_patch16_224-1.pth", id="transformer"),
        pytest.param("resnet50", "resnet50_a1_0-14fe96d1.pth", id="resnet", marks=pytest.mark.slow),
        pytest.param(
            "convnext_tiny", "convnext_tiny_1k_224_ema.pth", id="convnext", marks=pytest.mark.slow
        ),
    ],
)
def test_encoder_by_path_is_fine_tuned_and_serves(shell, world, toy, network, file):
    """The network that is grown is judged by nobody, so that it is in the file and is used."""
    path, sha256 = timm_file(world, network, file)
    made = whole_way(shell, world, toy, "--encoder", f"path:{path}", "--adapt-steps", "1")
    assert serialization.describe(made)["backbone"]["sha256"] == sha256
    finder = torch.load(made, weights_only=True)["finder"]
    assert finder["encoder"] == network
    first = torch.load(path, weights_only=True)
    kept = {k.removeprefix("encoder.backbone.network."): v for k, v in finder["state"].items()}
    name = next(k for k in kept if k in first)  # of the part that does not learn
    assert torch.equal(kept[name], first[name].half())
    line = ["segment", world / "images" / "p0.png", "--prompter", made, "--out", world / "again"]
    assert shell(*line, "--method", "samic").code == 0  # by its features, as they are


def test_encoder_by_path_moved_and_then_changed(shell, world, toy):
    path, sha256 = timm_file(world, "test_vit", "test_vit-1.pth")
    made = whole_way(shell, world, toy, "--encoder", f"path:{path}", "--no-adapt")
    assert serialization.describe(made)["backbone"]["sha256"] == sha256
    moved = path.rename(world / "test_vit-moved.pth")
    line = ["segment", world / "images", "--prompter", made, "--out", world / "again"]
    ran = shell(*line)
    assert (ran.code, len(ran.err.splitlines())) == (3, 1)
    assert "test_vit-1.pth:" in ran.err
    assert shell(*line, "--encoder", f"path:{moved}").code == 0
    state = torch.load(moved, weights_only=True)
    torch.save({**state, "patch_embed.proj.bias": state["patch_embed.proj.bias"] + 1}, moved)
    ran = shell(*line, "--encoder", f"path:{moved}")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert "p.pt: trained on " in ran.err


@pytest.mark.parametrize(
    "side_px",
    [pytest.param(128, id="128px"), pytest.param(1024, id="1024px", marks=pytest.mark.slow)],
)
def test_vit_b_imported_by_path_with_its_hash(shell, world, side_px):
    path, sha256 = sam_file(world, side_px)
    try:
        ran = shell("models", "import", path, "--name", "mysam", "--arch", "vit_b",
                    "--sha256", sha256)  # fmt: skip
        assert ran.code == 0
        assert sha256 in ran.out
        made = whole_way(shell, world, "mysam", "--no-adapt")
        header = serialization.describe(made)
        assert (header["backbone"]["kind"], header["backbone"]["sha256"]) == ("segmenter", sha256)
        assert header["normalisation"]["model"] == "mysam"
        tables = json.loads((world / "out" / "s" / "prompts.json").read_text())
        assert tables["model"] == "mysam"
    finally:  # 375 MB each
        path.unlink()
        for copy in (world / "home" / "models").glob("mysam*"):
            copy.unlink()
