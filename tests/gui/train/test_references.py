"""References as pictures, without Qt."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from lab import annotate, begin, listen, make_session
from toys import scene, write_image

from napari_samic.core.errors import InputError
from napari_samic.core.settings import HeatMapSettings
from napari_samic.core.types import Prompts, run_job
from napari_samic.gui.data import trusted_files
from napari_samic.gui.train import thumbnails
from napari_samic.gui.train.references import ReferenceGallery

HEAT = HeatMapSettings(sigma_frac=0.02)


@pytest.fixture
def session(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))
    made = make_session(monkeypatch, "tiny")
    yield made
    made.close()


@pytest.fixture
def gallery(session):
    heat = {"now": HEAT}
    made = ReferenceGallery(session, lambda: (heat["now"], False))
    made.heat, made.told = heat, listen(made.events)
    return made


def click(*points):
    return [Prompts(np.array([p], float), np.array([True])) for p in points]


def width(values, row):
    """Of the part of a row above a half, in pixels."""
    return int((values[row] > 0.5).sum())


def test_heat_map_has_the_shape_of_its_image_and_round_clicks():
    values = thumbnails.heat_map(click((50, 20)), (100, 40), 200, HeatMapSettings(0.05))
    assert values.shape == (200, 80)
    assert np.unravel_index(values.argmax(), values.shape) in {(100, 40), (101, 41), (100, 41)}
    assert width(values, 100) == pytest.approx(width(values.T, 40), abs=1)


def test_network_that_squeezes_sees_flat_clicks():
    values = thumbnails.heat_map(
        click((50, 20)), (100, 40), 200, HeatMapSettings(0.05), squeeze=True
    )
    assert values.shape == (200, 80)
    assert width(values.T, 40) == pytest.approx(2.5 * width(values, 100), rel=0.15)


def test_small_picture_keeps_sides_and_colours():
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, 100:] = (200, 100, 0)
    small = thumbnails.small(image)
    assert small.shape == (46, 92, 3)
    np.testing.assert_array_equal(small[20, 80], (200, 100, 0))


def test_thumbnails_come_when_open_and_follow_the_prompts(session, gallery):
    annotate(session, 0, 2)
    gallery.refresh()
    assert not session.runner.jobs
    gallery.open()
    session.runner.settle()
    assert [(t.name, t.objects) for t in gallery.thumbs] == [("cells[0]", 2), ("cells[2]", 2)]
    first = gallery.thumbs[0]
    changed = np.abs(first.overlay.astype(int) - first.picture).sum(2)
    assert changed[18, 21] > 100  # the click at (12, 14)
    assert changed[35, 5] == 0
    session.scheduler.show(session.pixels, (0,))
    session.scheduler.state.delete_object(1)
    gallery.refresh()
    session.runner.settle()
    assert gallery.thumbs[0].objects == 1
    assert gallery.thumbs[0].picture is first.picture  # not read again


def test_many_changes_are_drawn_one_at_a_time_and_the_last_counts(session, gallery):
    annotate(session, 0)
    gallery.open()
    for sigma in (0.05, 0.2):
        gallery.heat["now"] = HeatMapSettings(sigma)
        gallery.refresh()
    assert len(session.runner.jobs) == 1
    session.runner.settle()
    assert gallery.told == ["thumbs"]
    thumb = gallery.thumbs[0]
    assert (thumb.overlay != thumb.picture).any(2).mean() > 0.5  # wide clicks


def test_image_that_is_nowhere_has_a_card_that_says_so(session, gallery):
    annotate(session, 0)
    session.viewer.layers.clear()
    session.layer = session.pixels = None
    gallery.open()
    session.runner.settle()
    assert "not open in napari" in gallery.thumbs[0].why
    assert not gallery.thumbs[0].is_open
    with pytest.raises(InputError, match="no reference is open"):
        gallery.show_heat(True)
    assert not gallery.wants_heat
    with pytest.raises(InputError, match="not open in napari"):
        gallery.select("cells[0]")


def test_file_that_a_prompt_file_names_elsewhere_is_not_opened(session, gallery, tmp_path):
    begin(session, tmp_path / "p")
    annotate(session, 2, 3)
    for annotation in session.scheduler.state.annotations.values():
        annotation.file = str(tmp_path / "private" / f"{annotation.name}.tif")
        write_image(Path(annotation.file), scene(2)[0])
    session.viewer.layers.clear()
    session.layer = session.pixels = None
    gallery.open()
    session.runner.settle()
    assert all("private" in thumb.why for thumb in gallery.thumbs)
    with pytest.raises(InputError, match=r"private/cells\[2\]\.tif yet\. Open its image"):
        run_job(session.reference_images())


@pytest.mark.parametrize("where", ["its own", "the project's", "the project's, its own is damaged"])
def test_image_that_is_not_open_is_read_from_its_file(session, gallery, tmp_path, where):
    project = begin(session, tmp_path / "p")
    annotate(session, 2)
    annotation = session.scheduler.state.annotations["cells[2]"]
    if where == "its own":  # a stack: its slice is read
        annotation.file = str(tmp_path / "cells.tif")
        trusted_files.remember([Path(annotation.file)])
        tifffile.imwrite(
            annotation.file, session.layer.data, photometric="rgb", metadata={"axes": "TYXS"}
        )
    else:
        run_job(session.reference_images())
        assert (project.images_folder / "cells[2].tif").is_file()
    if "damaged" in where:
        annotation.file = str(tmp_path / "damaged.tif")
        Path(annotation.file).write_bytes(b"II*\0 no more")
    session.viewer.layers.clear()
    session.layer = session.pixels = None
    gallery.open()
    session.runner.settle()
    (thumb,) = gallery.thumbs
    assert (thumb.why, thumb.is_open) == ("", False)
    np.testing.assert_array_equal(thumb.picture, thumbnails.small(scene(2)[0]))
    gallery.refresh()
    session.runner.settle()
    assert gallery.thumbs[0].picture is thumb.picture  # not read again


def test_heat_map_is_of_the_image_on_the_screen_and_its_reference_is_marked(session, gallery):
    annotate(session, 0, 2)
    gallery.open()
    session.runner.settle()
    gallery.show_heat(True)
    session.runner.settle()
    assert (gallery.name, gallery.heat_overlay.reference.annotation.name) == (
        "cells[2]",
        "cells[2]",
    )
    assert gallery.told[-2:] == ["thumbs", "heat_overlay"]
    session.scheduler.show(session.pixels, (0,))
    gallery.follow()
    gallery.refresh()
    session.runner.settle()
    assert (gallery.name, gallery.heat_overlay.reference.annotation.name) == (
        "cells[0]",
        "cells[0]",
    )
    session.scheduler.show(session.pixels, (1,))  # not a reference
    gallery.follow()
    assert gallery.name == "cells[0]"


def test_heat_map_wanted_on_another_image_brings_a_reference_up(session, gallery, monkeypatch):
    shown = []
    monkeypatch.setattr(session, "show_image", shown.append)
    annotate(session, 1, 2)
    session.scheduler.show(session.pixels, (0,))
    gallery.show_heat(True)
    assert (gallery.name, shown) == ("cells[1]", ["cells[1]"])
    gallery.select("cells[2]")
    assert gallery.told[-1] == "thumbs"  # it is marked, also where nothing else changes
    gallery.show_heat(True)
    assert shown == ["cells[1]", "cells[2]", "cells[2]"]


def test_heat_map_that_comes_late_is_dropped(session, gallery):
    annotate(session, 0, 1)
    gallery.is_open = True
    gallery.show_heat(True, "cells[0]")
    late = session.runner.jobs[0]
    gallery.show_heat(True, "cells[1]")
    session.runner.settle()
    assert late not in session.runner.jobs
    assert gallery.heat_overlay.reference.annotation.name == "cells[1]"
    gallery.show_heat(True, "cells[0]")
    gallery.show_heat(False)
    session.runner.settle()
    assert gallery.heat_overlay is None


def test_heat_map_of_a_layer_has_its_pixels_or_fewer(session, gallery):
    annotate(session, 0)
    gallery.is_open = True
    gallery.show_heat(True)
    session.runner.settle()
    assert gallery.heat_overlay.values.shape == (48, 60)
    annotation = gallery.heat_overlay.reference.annotation
    annotation.shape = (4800, 6000)
    gallery.refresh()
    session.runner.settle()
    assert gallery.heat_overlay.values.shape == (410, 512)
