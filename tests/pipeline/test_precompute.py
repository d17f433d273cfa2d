"""Images encoded ahead: what comes after encodes nothing."""

import pytest
from toys import scene, write_image, write_prompts

import napari_samic
from napari_samic.core.errors import InputError
from napari_samic.core.settings import AdaptSettings, TrainSettings
from napari_samic.io.cache import ArrayCache
from napari_samic.pipeline import common

CLICKS = ([(12, 14)], [(32, 40)])


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Folder of an empty cache."""
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "features"


def entries(folder):
    """What a cache holds; a file that is written again is another one."""
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def write_dark(folder, count=3, scale=90):
    """Images of 16 bits that fill a part of the range, in which a fit differs from file to file."""
    for i in range(count):
        write_image(folder / f"d{i}.tif", scene(i, scale=scale + i)[0])
    return folder


def precompute(images, **options):
    return napari_samic.precompute(images, device="cpu", **options)


def test_what_is_annotated_afterwards_encodes_nothing(toy, tmp_path, cache):
    images = write_dark(tmp_path / "images")
    outcome = precompute(images, model=toy)
    before = entries(cache)
    assert (outcome.done, outcome.skipped, outcome.out) == (("d0", "d1", "d2"), (), cache)
    assert outcome.figures["bytes"] == sum(path.stat().st_size for path in cache.iterdir()) > 0
    prompts = write_prompts(tmp_path / "p.json", [(f"d{i}", (48, 60), CLICKS) for i in range(3)])
    napari_samic.annotate(images, prompts=prompts, out=tmp_path / "o", model=toy, device="cpu")
    assert entries(cache) == before
    again = precompute(images, model=toy)
    assert (again.done, again.skipped, again.figures) == ((), outcome.done, outcome.figures)


def test_what_is_segmented_afterwards_encodes_nothing(toy, tmp_path, cache, monkeypatch):
    prompter = tmp_path / "p.pt"
    dark = write_dark(tmp_path / "images")
    for i in range(3):
        write_image(tmp_path / "masks" / f"d{i}.png", scene(i)[1])
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "other"))
    napari_samic.train(
        dark, masks=tmp_path / "masks", out=prompter, model=toy, device="cpu",
        settings=TrainSettings(epochs=1, views=1), adapt=AdaptSettings(adapt=False),
    )  # fmt: skip
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))
    more = write_dark(tmp_path / "more", 2, scale=70)
    write_image(more / "wide.tif", scene(2, (96, 2400), 80)[0])  # cut into tiles
    assert precompute(more, prompter=prompter).done == ("d0", "d1", "wide")
    before = entries(cache)
    assert len(before) > 20
    napari_samic.segment(more, prompter=prompter, out=tmp_path / "o", device="cpu")
    new = entries(cache).keys() - before.keys()
    assert {name: entries(cache)[name] for name in before} == before
    assert len(new) <= 4  # of the references


def test_image_that_fails_is_told_and_the_others_are_encoded(toy, tmp_path, cache):
    images = write_dark(tmp_path / "images")
    (images / "d1.tif").write_bytes(b"no image")
    outcome = precompute(images, model=toy)
    assert (outcome.done, list(outcome.failures)) == (("d0", "d2"), ["d1"])
    assert len(entries(cache)) == 2


def test_images_that_would_push_out_others_are_left_out_and_told(toy, tmp_path, cache, monkeypatch):
    images = write_dark(tmp_path / "images")
    size = precompute(images, model=toy).figures["bytes"] // 3
    for path in cache.iterdir():
        path.unlink()
    small = ArrayCache(cache, max_bytes=int(size * 2.5))
    monkeypatch.setattr(common, "default_cache", lambda: small)
    outcome = precompute(images, model=toy)
    assert (outcome.done, outcome.figures["left_out"]) == (("d0", "d1"), 1)
    assert len(entries(cache)) == 2
    assert any("1 of 3 images left out" in line for line in outcome.notices)


def test_workers_encode_what_a_single_process_does(toy, tmp_path, cache):
    distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    images = write_dark(tmp_path / "images")
    with distributed.LocalCluster(
        n_workers=1, processes=False, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as workers:
        remote = precompute(images, model=toy, dask=workers.scheduler_address)
    assert remote.done == ("d0", "d1", "d2")
    before = entries(cache)
    assert precompute(images, model=toy).skipped == remote.done
    assert entries(cache) == before


def test_range_of_a_prompt_file_is_taken(toy, tmp_path, cache):
    images = write_dark(tmp_path / "images")
    kind = {"low": [0], "high": [30_000], "channels": [0], "channel_count": 3, "dtype": "uint16"}
    prompts = write_prompts(
        tmp_path / "p.json", [("d1", (48, 60), CLICKS)], model=toy, normalisation=kind
    )
    precompute(images, prompts=prompts, model=toy)
    before = entries(cache)
    napari_samic.annotate(images, prompts=prompts, out=tmp_path / "o", model=toy, device="cpu")
    assert entries(cache) == before


def test_channels_of_a_prompter_are_not_chosen_anew(prompter, scenes):
    with pytest.raises(InputError, match="channels"):
        precompute(scenes / "images", prompter=prompter, channels=(0,))
