"""Other packages' segmenters, joined by entry points."""

from importlib.metadata import EntryPoint

import pytest

from napari_samic.core.errors import PluginError, SettingsError
from napari_samic.models.hub import plugins, registry


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
    with pytest.raises(SettingsError, match="one of segmenters, prompters"):
        registry.plugins("painters")


@pytest.mark.parametrize("end", ["raise SystemExit", "raise ValueError('a\\nb')", "1 / 0", "("])
def test_plugin_that_breaks_when_imported_is_one_line(tmp_path, monkeypatch, end):
    (tmp_path / "broken_plugin.py").write_text(end)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("broken", "broken_plugin:Thing", "napari_samic.prompters")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry])
    joined = registry.plugins("prompters")
    assert list(joined) == ["broken"]  # listed, not imported
    with pytest.raises(PluginError, match=r"plugin broken .*can't be imported") as caught:
        joined["broken"]
    assert "\n" not in str(caught.value)
