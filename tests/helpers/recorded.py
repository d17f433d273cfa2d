"""The whole way, recorded once with the toy segmenter, and a copy of it for each test."""

import shutil

import pytest
from toys import scene, write_image, write_scenes


@pytest.fixture(scope="session")
def original(tmp_path_factory, toy):
    """`images`, `masks`, `more`, their results, and `recipe.yaml`; not to be changed.

    Made with one thread.
    """
    import torch

    from napari_samic import api
    from napari_samic.core.settings import (
        AdaptSettings,
        AnnotateSettings,
        PeakSettings,
        TrainSettings,
    )

    torch.set_num_threads(1)
    folder = write_scenes(tmp_path_factory.mktemp("original"), 3)
    for i in (3, 4):
        write_image(folder / "more" / f"q{i}.png", scene(i)[0])
        write_image(folder / "truth" / f"q{i}.png", scene(i)[1])
    images, recipe = folder / "images", folder / "recipe.yaml"
    common = {"model": toy, "device": "cpu", "record": recipe}
    api.annotate(
        images, masks=folder / "masks", simulate=True, out=folder / "annotated",
        settings=AnnotateSettings(target_iou=0.8), **common,
    )  # fmt: skip
    api.train(
        images, prompts=folder / "annotated" / "prompts.json", out=folder / "discs.pt",
        settings=TrainSettings(epochs=1, views=1), peaks=PeakSettings(min_area_frac=0.2),
        adapt=AdaptSettings(adapt=False), **common,
    )  # fmt: skip
    api.segment(
        folder / "more", prompter=folder / "discs.pt", out=folder / "labels", device="cpu",
        peaks=PeakSettings(min_area_frac=0.2, threshold=0.4), record=recipe,
    )  # fmt: skip
    api.evaluate(
        predictions=folder / "labels", truth=folder / "truth", out=folder / "m.json", record=recipe
    )
    return folder


@pytest.fixture
def project(original, tmp_path):
    """The recipe and what it needs, elsewhere; none of the results."""
    folder = tmp_path / "project"
    for name in ("images", "masks", "more", "truth"):
        shutil.copytree(original / name, folder / name)
    shutil.copy(original / "recipe.yaml", folder)
    return folder
