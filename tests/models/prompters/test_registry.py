"""The table of methods: names, how each is made, and what is imported when."""

import ast
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from toy_backbone import ColourBackbone, discs
from toy_segmenter import ColourSegmenter, shown

from napari_samic.core.errors import PluginError, SettingsError
from napari_samic.core.types import Prompter
from napari_samic.models.hub import plugins
from napari_samic.models.prompters import persam_f, registry

ONE = shown("one", [(14, 44, 1), (44, 14, 2)])


class Theirs:
    name = "theirs"

    def propose(self, references, image): ...


class Broken(Theirs):
    def __init__(self):
        raise OSError("no licence")


@pytest.fixture
def joined(monkeypatch):
    found = [
        EntryPoint(k, f"{__name__}:{v}", "napari_samic.prompters")
        for k, v in (("theirs", "Theirs"), ("broken", "Broken"))
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: found)


@pytest.mark.parametrize("name", registry.METHODS)
def test_every_method_proposes_with_its_default_references(name, monkeypatch):
    monkeypatch.setattr(persam_f.fit_mask_weights, "__kwdefaults__", {"steps": 5})
    made = registry.make(name, ColourSegmenter(), ColourBackbone(), [ONE])
    assert isinstance(made, Prompter)
    assert made.name == name
    proposal = made.propose((), discs([(40, 16, 1), (20, 44, 2)], radius=10, seed=2))
    assert proposal.heat_map.values.shape == (64, 64)


@pytest.mark.parametrize(
    "name", [n for n, m in registry.METHODS.items() if m.features != "backbone"]
)
def test_method_that_needs_no_backbone_is_made_without(name):
    assert registry.make(name, ColourSegmenter()).name == name


def test_options_reach_the_class():
    assert registry.make("forest", None, ColourBackbone(), trees=7).trees == 7


@pytest.mark.parametrize("name", registry.METHODS)
def test_the_seed_reaches_every_method_that_draws(name):
    made = registry.make(name, ColourSegmenter(), ColourBackbone(), seed=5)
    assert getattr(made, "seed", 5) == 5
    assert hasattr(made, "seed") == registry.METHODS[name].draws


def test_persam_compares_the_embedding_whatever_backbone_there_is():
    assert registry.make("persam", ColourSegmenter(), ColourBackbone()).backbone is None


def test_forest_without_a_backbone_is_refused():
    with pytest.raises(SettingsError, match="forest: no backbone"):
        registry.make("forest", ColourSegmenter())


def test_unknown_name_is_told_with_the_known_ones(joined):
    with pytest.raises(
        SettingsError, match=r"unknown method 'persan'.* persam, .*registration, broken"
    ):
        registry.make("persan", ColourSegmenter())


def test_trained_one_is_made_elsewhere():
    assert "samic" not in registry.names()
    with pytest.raises(SettingsError, match="It is trained"):
        registry.make("samic", ColourSegmenter())


def test_other_packages_prompters_come_last_and_are_made(joined):
    assert registry.names()[-2:] == ("broken", "theirs")
    assert registry.make("theirs", None).name == "theirs"


def test_prompter_that_can_not_be_made_is_named(joined):
    with pytest.raises(PluginError, match=r"broken: can't be made \(no licence"):
        registry.make("broken", None)


def test_table_is_read_without_torch():
    run = "import sys, napari_samic.models.prompters.registry; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", run], text=True).split()
    assert not {"torch", "sklearn"} & set(loaded)


def test_sklearn_is_imported_inside_functions_only():
    folder = Path(registry.__file__).parents[1]
    found = [
        path.name
        for path in folder.rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if "sklearn" in ast.unparse(node) and isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not found
