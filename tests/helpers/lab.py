"""A session over small scenes without a window: what tests of the steps after Annotate share."""

from types import SimpleNamespace

import numpy as np
from discs import Discs, Inline
from toys import scene

from napari_samic.gui.data.layer_pixels import LayerPixels
from napari_samic.gui.data.project import Project
from napari_samic.gui.session.session import Session


class Viewer:
    """Layers, and sliders that nobody looks at."""

    def __init__(self, *layers):
        self.layers = list(layers)
        self.dims = SimpleNamespace(ndim=3, point=[0, 0, 0], set_point=lambda *_: None)


def layer(data, name="cells", rgb=True):
    return SimpleNamespace(
        data=data, name=name, rgb=rgb, multiscale=False, source=SimpleNamespace(path=None),
        metadata={}, ndim=data.ndim - rgb,
        data_to_world=lambda place: tuple(place),
    )  # fmt: skip


def make_session(monkeypatch, model, count=4):
    """A session over a stack of scenes, with `model` named but answered by discs."""
    monkeypatch.setattr(
        "napari_samic.gui.data.layer_choice.image_layers", lambda viewer: viewer.layers
    )
    cells = layer(np.stack([scene(i)[0] for i in range(count)]))
    session = Session(Viewer(cells), Inline())
    session.layer, session.pixels = cells, LayerPixels([cells], session.names.of(cells))
    session.scheduler.segmenter = Discs()
    session.scheduler.state.set_model(model)
    return session


def listen(*groups):
    """Names of the signals that these groups emit from now on."""
    told = []
    for group in groups:
        group.connect(lambda info: told.append(info.signal.name))
    return told


def is_heard(group):
    """Whether anything listens."""
    return any(len(signal) for signal in group.signals.values())


def annotate(session, *slices):
    """Click on the two objects of some slices, as a user would."""
    for number in slices:
        session.scheduler.show(session.pixels, (number,))
        session.scheduler.prepare()
        for row, column in ((12 + number, 14), (32, 40 - number)):
            session.scheduler.state.new_object()
            session.scheduler.state.add_point(row, column)
        session.runner.settle()


def begin(session, folder):
    session.scheduler.autosaver.begin_project(Project.create(folder))
    session.runner.settle()
    return session.project
