"""Every contribution of the manifest, reached as a user reaches it, in a real viewer."""

import json

import numpy as np
import pytest
import tifffile

pytest.importorskip("napari")
pytest.importorskip("qtpy")
import npe2
from discs import Discs, Inline
from napari._app_model import get_app_model
from napari.layers import Image, Labels

from napari_samic.gui import work
from napari_samic.gui.dock import SamicDock
from napari_samic.gui.header import ProjectLine
from napari_samic.gui.opening import dock_of
from napari_samic.gui.project import Project
from napari_samic.gui.recipedialog import RecipeDialog


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAMIC_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def ours(npe2pm, monkeypatch):
    """Only our manifest and napari's own are registered."""
    import napari_builtins

    monkeypatch.setattr(work, "open_model", _discs)
    monkeypatch.setattr("napari_samic.gui.jobs.Jobs", Inline)
    npe2pm.discover()


def _discs(_name):
    yield work.Step(0, 0)
    return Discs()
