"""A segmenter file that answers discs, small pictures, and the shell in process."""

import json
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

SHAPE = (48, 60)
TURNED = {  # of [[1, 2, 3], [4, 5, 6]], as EXIF defines them
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
}


def write_toy(path, side=64):
    """Weights of the `tiny` format, set by hand: a disc at every positive click, an equal score."""
    import torch

    from napari_samic.models.tiny import model

    torch.manual_seed(0)
    config = model.TinyConfig(encoder="test_efficientnet", side_px=side, embed=8, unet=(8, 8, 8, 8))
    network = model.build(config)
    decoder = network.mask_decoder
    with torch.no_grad():
        for part in (decoder.from_image, decoder.from_prompt, *decoder.narrow, decoder.up[2][0]):
            part.weight.zero_()
            if part.bias is not None:
                part.bias.zero_()
        decoder.from_prompt.weight[0, 0, 1, 1] = 1.0  # disc around a positive click
        decoder.from_prompt.weight[1, 6, 1, 1] = 1.0  # inside of the box
        for channel in range(8):
            decoder.up[2][0].weight[channel, channel, 1, 1] = 1.0
        decoder.head.weight.zero_()
        decoder.head.weight[:, :2] = 1.0
        decoder.head.bias.copy_(torch.tensor([-2.0, -2.0, -1.0, -3.0]))
        decoder.confidence[4].weight.zero_()
        decoder.confidence[4].bias.fill_(1.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.pack(network, config), path)
    return path


def scene(number=0, shape=SHAPE, scale=1):
    """Two discs on a noisy ground: (H, W, 3) pixels and (H, W) ids."""
    rng = np.random.default_rng(number)
    rows, columns = np.indices(shape)
    image = rng.integers(40, 80, (*shape, 3))
    labels = np.zeros(shape, np.uint8)
    for value, (row, column) in enumerate([(12 + number, 14), (32, 40 - number)], start=1):
        inside = (rows - row) ** 2 + (columns - column) ** 2 <= 49
        image[inside], labels[inside] = (200, 60, 90), value
    dtype = np.uint8 if scale == 1 else np.uint16
    return (image * scale).astype(dtype), labels


def write_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.shape[-1] == 3 else "minisblack")
    else:
        Image.fromarray(pixels).save(path)
    return path


def write_scenes(folder, count=4, suffix=".png"):
    """`folder/images/p0.png` ... and `folder/masks/p0.png` ..."""
    for i in range(count):
        image, labels = scene(i)
        write_image(folder / "images" / f"p{i}{suffix}", image)
        write_image(folder / "masks" / f"p{i}.png", labels)
    return folder


def write_labels_of(folder, count=4):
    """The true labels of `write_scenes`, as a job would write them."""
    for i in range(count):
        write_image(folder / f"p{i}.tif", scene(i)[1].astype(np.int32))


def prompts_tree(images, **changes):
    """Tree of a prompt file: {name: ((rows, columns), [objects of [(row, column)]])}."""
    tree = {
        "format": "napari-samic/prompts", "version": 1, "model": "", "normalisation": None,
        "classes": {},
        "images": [
            {"name": name, "file": "", "shape": {"rows": shape[0], "columns": shape[1]},
             "sha256": "", "objects": [
                {"class": 1, "score": 0.5, "box": None, "points": [
                    {"row": r, "column": c, "foreground": True} for r, c in points]}
                for points in objects]}
            for name, shape, objects in images
        ],
    }  # fmt: skip
    return tree | changes


def write_prompts(path, images, **changes):
    path.write_text(json.dumps(prompts_tree(images, **changes)))
    return path


def hidden_files(folder):
    """What an interrupted write would leave behind."""
    return [p.name for p in Path(folder).rglob("*") if p.name.startswith(".") or "tmp" in p.name]


class Ran:
    """What a command left: exit code, stdout, stderr."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def complaints(self):
        """Lines of stderr, but for those on what mask values mean, and on predicted references."""
        usual = "note: .*(mask values: |of the prompter: labels are predicted)"
        return [x for x in self.err.splitlines() if not re.match(usual, x)]


@pytest.fixture
def shell(capfd):
    """Run a command line in this process; `capfd`, so that a stray print of C is seen too."""
    from napari_samic.cli import main

    def run(*arguments):
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return Ran(stopped.value.code, out, err)

    return run


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """`path:FILE` of the toy segmenter."""
    return f"path:{write_toy(tmp_path_factory.mktemp('toy') / 'toy.pt')}"


@pytest.fixture
def no_finetuning(monkeypatch):
    """Trainings of this test leave the encoder as it is, for those that take no settings."""
    room = import_module("napari_samic.pipeline.train")  # `pipeline.train` is the job
    monkeypatch.setattr(room, "finetune", lambda *_, **__: iter(()))


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Four pictures with masks; not to be changed."""
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="session")
def prompter(tmp_path_factory, toy, scenes):
    """A prompter file trained for one epoch; not to be changed."""
    import napari_samic
    from napari_samic.core.settings import AdaptSettings, PeakSettings, TrainSettings

    out = tmp_path_factory.mktemp("prompter") / "prompter.pt"
    napari_samic.train(
        scenes / "images", masks=scenes / "masks", out=out, model=toy, device="cpu",
        settings=TrainSettings(epochs=1, views=1), peaks=PeakSettings(min_area_frac=0.2),
        adapt=AdaptSettings(adapt=False),
    )  # fmt: skip
    return out
