"""What would be found now, without Qt and without threads."""

from types import SimpleNamespace

import numpy as np
import pytest
from discs import Discs, Inline

from napari_samic.gui.data.layer_pixels import LayerPixels
from napari_samic.gui.session import jobs
from napari_samic.gui.session.session import Session

PLACES = ((12, 14), (12, 44), (34, 20), (34, 46))
RADIUS = 5


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))


LEFT_OUT = np.s_[36:44, 2:10]
"""Where there may be something else, less bright than the discs."""


def picture(seed, *, has_more=False):
    rows, columns = np.indices((48, 60))
    image = np.random.default_rng(seed).normal(40, 6, (48, 60))
    for row, column in PLACES:
        image[np.hypot(rows - row, columns - column) <= RADIUS] += 150
    image[LEFT_OUT] += 90 * has_more
    return image.clip(0, 255).astype(np.uint8)


@pytest.fixture
def session(monkeypatch, request):
    """A stack of two pictures with four bright discs each, and a model that draws such discs."""

    def open_model(name):
        yield jobs.JobProgress(0, 0)
        return Discs(name)

    monkeypatch.setattr(jobs, "open_model", open_model)
    monkeypatch.setattr(jobs, "OTHERS_PAUSE_S", 0)
    has_more = getattr(request, "param", False)
    stack = np.stack([picture(i, has_more=has_more) for i in range(2)])
    layer = SimpleNamespace(
        data=stack, name="cells", rgb=False, multiscale=False,
        source=SimpleNamespace(path=None),
    )  # fmt: skip
    session = Session(SimpleNamespace(layers=[]), Inline())
    session.layer, session.pixels = layer, LayerPixels([layer])
    session.scheduler.choose_model("discs")
    session.scheduler.show(session.pixels, (0,))
    session.runner.settle()
    yield session
    session.close()


def click(session, *places):
    for place in places:
        session.scheduler.state.new_object()
        session.scheduler.state.add_point(*place)
        session.runner.settle()


def looked(session):
    session.live.refresh()
    session.runner.settle()
    return session.live.result


def truth():
    return picture(0) > 120


def test_other_objects_of_the_slice_are_found_from_one(session):
    click(session, PLACES[0])
    session.live.switch(True)
    session.runner.settle()
    result = session.live.result
    assert result.count == 4
    assert ((result.labels > 0) & truth()).sum() > 0.7 * truth().sum()
    assert (result.labels[~truth()] > 0).mean() < 0.05
    assert "4 objects" in session.live.status


def test_it_follows_the_slice_and_what_is_annotated(session):
    click(session, PLACES[0])
    session.live.switch(True)
    first = looked(session)
    assert looked(session) is first  # nothing has changed
    click(session, PLACES[1])
    second = looked(session)
    assert second is not first
    session.live.forget()
    session.scheduler.show(session.pixels, (1,))
    assert session.live.result is None
    assert looked(session).count == 4


def test_other_slices_that_nobody_annotated_come_as_thumbnails(session):
    click(session, PLACES[0])
    session.live.switch(True)
    session.runner.settle()
    (thumb,) = session.live.thumbs.values()
    assert (thumb.name, thumb.objects) == ("cells[1]", 4)
    changed = (thumb.overlay != thumb.picture).any(-1)
    assert changed.mean() > 0.05
    assert thumb.picture[changed].mean() > 2 * thumb.picture[~changed].mean()  # discs are bright
    session.scheduler.show(session.pixels, (1,))
    click(session, PLACES[0])
    looked(session)
    assert not session.live.thumbs
    session.live.switch(False)
    assert not session.live.thumbs


def test_objects_beside_those_of_marked_images_count_too(session):
    click(session, *PLACES)
    session.scheduler.state.use_as_reference(True)
    session.scheduler.show(session.pixels, (1,))
    session.runner.settle()
    session.live.switch(True)
    session.runner.settle()
    before = looked(session)
    click(session, PLACES[0])
    assert looked(session) is not before


@pytest.mark.parametrize("session", [True], indirect=True)
def test_only_an_image_marked_as_reference_says_that_the_rest_is_ground(session):
    click(session, *PLACES)
    session.live.switch(True)
    before = (looked(session).labels[LEFT_OUT] > 0).mean()  # nobody has said what this is
    session.scheduler.state.use_as_reference(True)
    assert (looked(session).labels[LEFT_OUT] > 0).mean() < before


def test_a_click_ends_the_work_and_is_answered_first(session):
    click(session, PLACES[0])
    session.live.switch(True)
    job = session.runner.jobs[-1]
    job.advance()
    session.scheduler.state.new_object()
    session.scheduler.state.add_point(*PLACES[1])
    assert job.cancelled
    session.runner.settle()
    assert session.live.result is None
    assert session.scheduler.state.annotation.labels()[PLACES[1]] == 2
    assert looked(session).count == 4


def test_classes_are_told_apart(session):
    state = session.scheduler.state
    click(session, PLACES[0])
    state.new_object()
    state.set_class(2)
    click(session, PLACES[1])
    session.live.switch(True)
    assert set(np.unique(looked(session).labels)) <= {0, 1, 2}


def test_without_an_object_it_says_what_to_do_and_off_is_off(session):
    session.live.switch(True)
    assert session.live.result is None
    assert "annotate" in session.live.status
    click(session, PLACES[0])
    assert looked(session) is not None
    session.live.switch(False)
    assert (session.live.result, session.live.status) == (None, "")
    assert looked(session) is None
