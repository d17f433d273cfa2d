"""The table of bad input: each line of it ends in one line on stderr and the documented code.

Every case gets a fresh folder with `images/` and `masks/` of four pictures, spoils something, and
says which command meets it, with which exit code, and which words the line must hold.
"""

import csv
import errno
import json
import pickle
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import requests
import tifffile
import torch
from toys import SHAPE, hidden_files, prompts_tree, write_image, write_prompts, write_scenes

CENTRES = [(12, 14)], [(32, 40)]


class World:
    """A folder of one's own, and the command line of each job in it."""

    def __init__(self, path, toy, prompter):
        self.path, self.toy, self.prompter = write_scenes(path), toy, prompter
        self.images, self.masks, self.out = path / "images", path / "masks", path / "out"

    def put(self, name, pixels, **options):
        path = self.images / name
        if path.suffix == ".tif":
            tifffile.imwrite(path, pixels, photometric="minisblack", **options)
        else:
            write_image(path, pixels)

    def truncate(self, name, share=0.5):
        path = self.images / name
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    def prompts(self, *images, **changes):
        return write_prompts(self.path / "p.json", images or [("p0", SHAPE, CENTRES)], **changes)

    def segment(self, *more, prompter=None, images=None):
        given = prompter or self.prompter
        return ["segment", images or self.images, "--prompter", given, "--out", self.out, *more]

    def annotate(self, *more):
        return ["annotate", self.images, "--out", self.out, "--model", self.toy, *more]

    def simulate(self, *more):
        return self.annotate("--masks", self.masks, "--simulate", "--max-clicks", "1", *more)

    def train(self, *more):
        return ["train", "--images", self.images, "--out", self.out / "p.pt", "--model", self.toy,
                "--epochs", "1", "--no-adapt", *more]  # fmt: skip

    def evaluate(self, *more):
        return ["evaluate", "--predictions", self.masks, "--truth", self.masks, *more]


@pytest.fixture
def world(tmp_path, toy, prompter):
    return World(tmp_path, toy, prompter)


@pytest.fixture
def full_disk(monkeypatch):
    """Every TIFF finds the disk full after some bytes."""

    def imwrite(path, *_, **__):
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    return lambda: monkeypatch.setattr(tifffile, "imwrite", imwrite)


# What spoils an image of a folder: name of the file, words of its line.

NOISE = np.random.default_rng(0).integers(0, 255, (20, 30), dtype=np.uint8)
FLOAT = NOISE.astype(np.float32)


def spoil_text(world):
    (world.images / "bad.png").write_text("hello")


def spoil_empty(world):
    (world.images / "bad.tif").write_bytes(b"")


def spoil_truncated_png(world):
    world.put("bad.png", NOISE)
    world.truncate("bad.png")


def spoil_truncated_tiff(world):
    world.put("bad.tif", NOISE)
    world.truncate("bad.tif")


def spoil_truncated_zlib(world):
    world.put("bad.tif", NOISE, compression="zlib")
    world.truncate("bad.tif")


def spoil_nan(world):
    world.put("bad.tif", np.where(np.arange(30) == 3, np.nan, FLOAT))


def spoil_infinite(world):
    world.put("bad.tif", np.where(np.arange(30) == 3, np.inf, FLOAT))


def spoil_one_pixel(world):
    world.put("bad.png", NOISE[:1, :1])


def spoil_one_row(world):
    world.put("bad.png", NOISE[:1])


def spoil_no_pixel(world):
    import zarr

    zarr.create_array(world.images / "bad.zarr", shape=(0, 30), dtype="uint8", chunks=(1, 30))


def spoil_five_axes(world):
    import zarr

    shape = (2, 2, 2, 20, 30)
    zarr.create_array(world.images / "bad.zarr", shape=shape, dtype="uint8", chunks=shape)


def spoil_channels(world):
    world.put("bad.ome.tif", np.stack([NOISE] * 5), metadata={"axes": "CYX"})


BAD_IMAGES = [
    pytest.param(spoil_text, "bad.png: can't be read", id="unreadable"),
    pytest.param(spoil_empty, "bad.tif: can't be read", id="empty_file"),
    pytest.param(spoil_truncated_png, "bad.png: can't be read (image file is trunc", id="png"),
    pytest.param(spoil_truncated_tiff, "bad.tif: can't be read", id="tiff"),
    pytest.param(spoil_truncated_zlib, "bad.tif: can't be read", id="zlib_tiff"),
    pytest.param(spoil_nan, "bad.tif: 20 of 600 values are NaN or infinite. Replace", id="nan"),
    pytest.param(spoil_infinite, "bad.tif: 20 of 600 values are NaN or inf", id="infinite"),
    pytest.param(spoil_one_pixel, "bad.png: 1 x 1 pixels, expected at least 2 x 2", id="one_px"),
    pytest.param(spoil_one_row, "bad.png: 1 x 30 pixels, expected at least 2 x 2", id="one_row"),
    pytest.param(spoil_no_pixel, "bad.zarr: 0 x 30 pixels, expected at least 2", id="no_pixel"),
    pytest.param(spoil_five_axes, "bad.zarr: 5 axes of lengths", id="five_axes"),
    pytest.param(spoil_channels, "bad: 5 channels, expected 3", id="channels"),
]


@pytest.mark.parametrize(("spoil", "words"), BAD_IMAGES)
def test_bad_image_in_a_folder_does_not_stop_the_others(world, shell, spoil, words):
    spoil(world)
    ran = shell(*world.segment())
    assert ran.code == 1
    assert [line.startswith(f"failed: {words}") for line in ran.complaints] == [True]
    assert sorted(p.stem for p in world.out.glob("*.tif")) == ["p0", "p1", "p2", "p3"]
    (row,) = csv.DictReader((world.out / "failures.csv").open())
    assert row["image"] == "bad"
    assert row["reason"].startswith(words)
    assert not hidden_files(world.out)


@pytest.mark.parametrize(("spoil", "words"), BAD_IMAGES)
def test_bad_image_alone_is_told_and_leaves_no_labels(world, shell, spoil, words):
    shutil.rmtree(world.images)
    world.images.mkdir()
    spoil(world)
    ran = shell(*world.segment())
    assert ran.code in (1, 2)
    assert len(ran.err.splitlines()) == 1
    assert words in ran.err
    assert not list(world.out.glob("*.tif"))
    assert not hidden_files(world.path)


def test_constant_image_is_valid(world, shell):
    world.put("flat.png", np.full((20, 30), 7, np.uint8))
    world.put("black.tif", np.zeros((20, 30), np.float32))
    ran = shell(*world.segment())
    assert (ran.code, ran.complaints) == (0, ["note: 2 images: grey, among images of colour."])
    assert (world.out / "flat.tif").exists()


# Everything else: a function that spoils the world and answers the command line.


def empty_folder(world, *_):
    (world.path / "void").mkdir()
    return world.segment(images=world.path / "void")


def no_folder(world, *_):
    return world.segment(images=world.path / "nowhere")


def same_stem(world, *_):
    world.put("p0.tif", NOISE)
    return world.segment()


def listed_twice(world, *_):
    image = world.images / "p0.png"
    return world.segment(image, images=image)


def mask_of_another_shape(world, *_):
    for i in range(4):
        write_image(world.masks / f"p{i}.png", np.eye(9, dtype=np.uint8))
    return world.train("--masks", world.masks)


def no_mask(world, *_):
    (world.masks / "p1.png").unlink()
    return world.simulate()


def prompts_outside(world, *_):
    return world.annotate("--prompts", world.prompts(("p0", SHAPE, ([(47, 60)],))))


def prompts_of_another_shape(world, *_):
    return world.train("--prompts", world.prompts(*((f"p{i}", (90, 90), CENTRES) for i in (0, 1))))


def no_image_in_prompts(world, *_):
    path = world.path / "p.json"
    path.write_text(json.dumps(prompts_tree([])))
    return world.annotate("--prompts", path)


def prompts_of_no_image(world, *_):
    return world.annotate("--prompts", world.prompts(("zebra", SHAPE, CENTRES)))


def empty_prompts(world, *_):
    return world.train("--prompts", world.prompts(*((f"p{i}", SHAPE, ()) for i in (0, 1))))


def reference_twice(world, *_):
    return world.train("--prompts", world.prompts(*(("p0", SHAPE, CENTRES) for _ in "ab")))


def wrong_version(world, *_):
    return world.annotate("--prompts", world.prompts(version=99))


def wrong_json(world, *_):
    (world.path / "p.json").write_text('{"format": ')
    return world.annotate("--prompts", world.path / "p.json")


def no_prompts(world, *_):
    return world.train("--prompts", world.path / "nope.json")


def checkpoint_of_another_kind(world, *_):
    return world.segment(prompter=world.toy.removeprefix("path:"))


def truncated_checkpoint(world, *_):
    data = world.prompter.read_bytes()
    (world.path / "half.pt").write_bytes(data[: len(data) // 2])
    return world.segment(prompter=world.path / "half.pt")


def no_checkpoint(world, *_):
    return world.segment(prompter=world.path / "nope.pt")


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def pickled_prompter(world, *_):
    evil = Evil(world.path / "was-here")
    torch.save({"kind": "napari-samic/prompter", "x": evil}, world.path / "evil.pt")
    return world.segment(prompter=world.path / "evil.pt")


def pickled_weights(world, *_):
    (world.path / "evil.pt").write_bytes(pickle.dumps(Evil(world.path / "was-here")))
    world.toy = f"path:{world.path / 'evil.pt'}"
    return world.simulate()


def truncated_weights(world, *_):
    data = Path(world.toy.removeprefix("path:")).read_bytes()
    (world.path / "half.pt").write_bytes(data[: len(data) // 2])
    world.toy = f"path:{world.path / 'half.pt'}"
    return world.simulate()


def prompter_as_weights(world, *_):
    world.toy = f"path:{world.prompter}"
    return world.simulate()


def unknown_model(world, *_):
    world.toy = "vit_bb"
    return world.simulate()


def model_not_fetched(world, *_):
    world.toy = "vit_b"
    return world.simulate()


def encoder_not_fetched(world, *_):
    return world.train("--masks", world.masks, "--encoder", "resnet50")


def segmenter_as_encoder(world, *_):
    return world.train("--masks", world.masks, "--encoder", "vit_b")


def encoder_nobody_knows(world, *_):
    return world.train("--masks", world.masks, "--encoder", "resnet5o")


def encoder_of_another_kind(world, *_):
    file = world.path / "resnet50-1.pth"
    torch.save({"a": torch.zeros(1)}, file)
    return world.train("--masks", world.masks, "--encoder", f"path:{file}")


def encoder_not_told(world, *_):
    file = world.path / "weights.pth"
    torch.save({"a": torch.zeros(1)}, file)
    return world.train("--masks", world.masks, "--encoder", f"path:{file}")


def encoder_without_network(world, _, monkeypatch):
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(world.path / "home"))
    return world.train("--masks", world.masks, "--encoder", "test_resnet")


def unknown_device(world, *_):
    return world.simulate("--device", "abacus")


def disk_full(world, full_disk, _):
    full_disk()
    return world.segment()


def read_only(world, _, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("napari_samic.pipeline.common.tempfile.TemporaryFile", refuse)
    return world.segment()


def out_is_a_file(world, *_):
    world.out.write_text("mine")
    return world.segment()


def out_under_a_file(world, *_):
    world.out.write_text("mine")
    return world.train("--masks", world.masks)


def out_among_images(world, *_):
    world.out = world.images
    return world.segment()


def prompter_exists(world, *_):
    world.out.mkdir()
    (world.out / "p.pt").write_text("mine")
    return world.train("--masks", world.masks)


def figures_exist(world, *_):
    (world.path / "m.json").write_text("mine")
    return world.evaluate("--out", world.path / "m.json")


def no_network(world, _, monkeypatch):
    def refuse(*_, **__):
        raise requests.exceptions.ConnectionError("Failed to resolve 'dl.fbaipublicfiles.com'")

    monkeypatch.setattr(requests, "get", refuse)
    return ["models", "fetch", "vit_b"]


def channels_of_words(world, *_):
    return world.simulate("--channels", "red")


def channels_that_are_not_there(world, *_):
    return world.simulate("--channels", "7")


def many_channels(world, *_):
    shutil.rmtree(world.images)
    world.images.mkdir()
    world.put("p0.ome.tif", np.stack([NOISE] * 5), metadata={"axes": "CYX"})
    write_image(world.masks / "p0.png", np.uint8(NOISE > 250))
    for i in (1, 2, 3):
        (world.masks / f"p{i}.png").unlink()
    return world.simulate()


def one_reference(world, *_):
    return world.train("--prompts", world.prompts())


def results_of_a_long_name(world, *_):
    return ["accept", "--results", "a" * 300, "--review", world.path / "r.json", "--out", world.out]


def nothing_to_score(world, *_):
    (world.path / "void").mkdir()
    return ["evaluate", "--predictions", world.path / "void", "--truth", world.masks]


CASES = [
    (empty_folder, 2, ["void: no image in this folder", ".png", ".tif"]),
    (no_folder, 2, ["nowhere: no such file or folder", "Check the name"]),
    (same_stem, 2, ["p0.png", "p0.tif", "both called 'p0'", "rename one"]),
    (listed_twice, 2, ["p0.png", "both called 'p0'"]),
    (mask_of_another_shape, 2, ["0 reference(s)", "p0.png: mask of (9, 9)", "(48, 60)", "Export"]),
    (no_mask, 2, ["no mask for p1", "has the name of its image"]),
    (prompts_outside, 2, ["p.json: p0", "column 60 is outside", "48 x 60", "Move or delete"]),
    (
        prompts_of_another_shape,
        2,
        ["2 could not be used", "p0: (48, 60)", "(90, 90)", "Use"],
    ),
    (no_image_in_prompts, 2, ["names no image", "Annotate one first"]),
    (prompts_of_no_image, 2, ["no image for the prompts of zebra", "Give the folder"]),
    (empty_prompts, 2, ["0 reference(s) with prompts", "Annotate"]),
    (reference_twice, 2, ["p.json", '"p0" is listed already']),
    (wrong_version, 2, ["p.json: version is 99, expected 1", "update"]),
    (wrong_json, 2, ["p.json: not JSON", "Pick a prompt file"]),
    (no_prompts, 2, ["nope.json: can't be read", "Check its name"]),
    (checkpoint_of_another_kind, 2, ["toy.pt: holds 'napari-samic/tiny'", "expected", "train"]),
    (truncated_checkpoint, 2, ["half.pt: not a prompter file, or truncated", "Train again"]),
    (no_checkpoint, 2, ["nope.pt: no such file", "train --out"]),
    (pickled_prompter, 2, ["evil.pt: ", "prompter"]),
    (pickled_weights, 2, ["evil.pt: ", "code"]),
    (truncated_weights, 2, ["half.pt: truncated or not a weights file", "Fetch it again"]),
    (prompter_as_weights, 2, ["prompter.pt: ", "expected"]),
    (unknown_model, 2, ["unknown model 'vit_bb'", "Did you mean vit_b?", "path:FILE"]),
    (model_not_fetched, 3, ["sam_vit_b_01ec64.pth is not in", "models fetch vit_b"]),
    (encoder_not_fetched, 3, ["resnet50-0676ba61.pth is not in", "models fetch resnet50"]),
    (segmenter_as_encoder, 2, ["encoder 'vit_b': is a segmenter", "resnet50"]),
    (encoder_nobody_knows, 2, ["encoder 'resnet5o': timm has none", "resnet50", "path:FILE"]),
    (encoder_of_another_kind, 2, ["resnet50-1.pth as resnet50: does not fit", "keys missing"]),
    (encoder_not_told, 2, ["weights.pth: of which network is not told", "config.json"]),
    (encoder_without_network, 3, ["test_resnet: timm's weights", "--encoder path:FILE"]),
    (unknown_device, 2, ["device 'abacus'", "cpu"]),
    (disk_full, 3, ["p0.tif: can't be written: the disk is full", "Free some space"]),
    (read_only, 3, ["out: can't be written: no permission", "Choose another folder"]),
    (out_is_a_file, 3, ["out: is a file, expected a folder", "Choose another"]),
    (out_under_a_file, 3, ["out: is a file, expected a folder", "Choose another"]),
    (out_among_images, 2, ["images: holds p0.png", "Choose another folder"]),
    (prompter_exists, 3, ["p.pt: exists already", "--overwrite"]),
    (figures_exist, 3, ["m.json: exists already", "--overwrite"]),
    (no_network, 3, ["vit_b: can't be fetched", "Failed to resolve", "there: ", "models import"]),
    (channels_of_words, 2, ["channels 'red'", "2,0,1"]),
    (channels_that_are_not_there, 2, ["channels (7,) asked for, but there are 3", "Choose"]),
    (many_channels, 2, ["p0: 5 channels", "Choose one to three"]),
    (one_reference, 2, ["1 reference(s) with prompts, training needs two", "Annotate one more"]),
    (results_of_a_long_name, 3, ["aaa: File name too long", "Check its name"]),
    (nothing_to_score, 2, ["void: no image in this folder"]),
]


def files_beside(world):
    """All files but those of the results and of the cache."""
    own = (world.out, world.path / "home")
    files = [p for p in world.path.rglob("*") if p.is_file()]
    return sorted(p for p in files if not any(o in p.parents for o in own))


@pytest.mark.parametrize(
    ("spoil", "code", "words"), [pytest.param(*case, id=case[0].__name__) for case in CASES]
)
def test_bad_input_ends_in_one_line(world, shell, full_disk, monkeypatch, spoil, code, words):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(world.path / "home"))
    command = spoil(world, full_disk, monkeypatch)
    before = files_beside(world)
    ran = shell(*command)
    assert ran.code == code, ran.err
    assert ran.out == ""
    assert len(ran.err.splitlines()) == 1, ran.err
    for word in ["error: ", *words]:
        assert word in ran.err
    assert files_beside(world) == before
    left = [p.name for p in world.out.rglob("*")] if world.out.is_dir() else []
    assert not {n for n in left if n.endswith(".tif")}
    assert not hidden_files(world.out)


def test_nothing_of_a_pickle_was_run(world, shell):
    shell(*pickled_prompter(world))
    shell(*pickled_weights(world))
    assert not (world.path / "was-here").exists()


def test_image_without_prompts_does_not_stop_the_others(world, shell):
    prompts = world.prompts(("p0", SHAPE, ()), ("p1", SHAPE, CENTRES))
    ran = shell(*world.annotate("--prompts", prompts))
    assert (ran.code, len(ran.complaints)) == (1, 1)
    assert "failed: p0: no prompts" in ran.err
    assert (world.out / "p1.tif").exists()


def test_mask_of_another_shape_does_not_stop_the_others(world, shell):
    write_image(world.masks / "p2.png", np.ones((9, 9), np.uint8))
    ran = shell(*world.simulate())
    assert (ran.code, len(ran.complaints)) == (1, 1)
    assert "failed: p2.png:" in ran.err
    assert "(9, 9)" in ran.err
    assert len(list(world.out.glob("p*.tif"))) == 3


def test_truth_without_an_object_is_told_by_name(world, shell):
    write_image(world.masks / "p2.png", np.zeros(SHAPE, np.uint8))
    ran = shell(*world.simulate())
    assert ran.code == 1
    assert ran.complaints[0].startswith("failed: p2: mask")


def test_many_failures_are_counted(world, shell):
    for i in range(9):
        (world.images / f"bad{i}.png").write_text("hello")
    ran = shell(*world.segment())
    lines = ran.complaints
    assert (ran.code, len(lines), lines[-1]) == (1, 6, "failed: 4 more")
    assert len(list(csv.DictReader((world.out / "failures.csv").open()))) == 9
