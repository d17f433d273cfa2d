"""Other packages' segmenters, joined by entry points."""

from importlib.metadata import EntryPoint

import pytest

from napari_samic.errors import PluginError, SettingsError
from napari_samic.models import plugins, registry


def function(): ...


class Whole:
    name = "whole"

    def candidates(self, image, objects, *, multimask=True, logits=None): ...

    def segment(self, image, objects): ...


class Half:
    name = "half"

    def segment(self, image, objects): ...


@pytest.fixture
def joined(monkeypatch):
    here = __name__
    found = [
        EntryPoint("whole", f"{here}:Whole", "napari_samic.segmenters"),
        EntryPoint("half", f"{here}:Half", "napari_samic.segmenters"),
        EntryPoint("gone", "no_such_module:Thing", "napari_samic.segmenters"),
        EntryPoint("thing", f"{here}:function", "napari_samic.segmenters"),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: found)
    return registry.plugins("segmenters")


def test_plugins_are_listed_without_being_imported(joined):
    assert list(joined) == ["gone", "half", "thing", "whole"]
    assert "gone" in joined
    assert len(joined) == 4


def test_plugin_with_all_methods_is_given(joined):
    assert joined["whole"].__name__ == "Whole"


@pytest.mark.parametrize(
    ("name", "match"),
    [
        pytest.param("half", r"half .*: lacks candidates of Segmenter", id="lacks_methods"),
        pytest.param("gone", "can't be imported", id="import_fails"),
        pytest.param("thing", "function, expected a class", id="no_class"),
    ],
)
def test_plugin_that_does_not_fit_says_why(joined, name, match):
    with pytest.raises(PluginError, match=match):
        joined[name]


def test_unknown_kind_of_plugin_is_refused():
    with pytest.raises(SettingsError, match="segmenters, prompters, refiners"):
        registry.plugins("painters")
