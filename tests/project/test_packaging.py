"""What reaches users: manifest, version, entry points."""

import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
import yaml

import napari_samic

ROOT = Path(__file__).parents[2]
LINK = ROOT / "src" / "napari_samic" / "napari.yaml"


def test_manifest_in_the_package_is_the_one_at_the_root() -> None:
    same = LINK.read_text(encoding="utf-8") == (ROOT / "napari.yaml").read_text(encoding="utf-8")
    mend = "git config core.symlinks true && git checkout -- src/napari_samic/napari.yaml"
    assert same, f"the link {LINK} is lost. Run: {mend}"


def test_manifest_is_valid_and_its_commands_import() -> None:
    npe2 = pytest.importorskip("npe2")
    manifest = npe2.PluginManifest.from_distribution("napari-samic")
    manifest.validate_imports()  # raises ValidationError, which names the command
    assert manifest.contributions.sample_data


def test_every_manifest_command_is_used() -> None:
    npe2 = pytest.importorskip("npe2")
    offers = npe2.PluginManifest.from_file(ROOT / "napari.yaml").contributions
    groups = (offers.sample_data, offers.readers, offers.writers, offers.widgets)
    used = {offer.command for group in groups for offer in group or ()}
    used |= {entry.command for menu in (offers.menus or {}).values() for entry in menu}
    assert {command.id for command in offers.commands} == used


def test_version_is_that_of_the_installed_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert napari_samic.__version__ == version("napari-samic") == declared["version"]


def test_qt_is_an_extra_and_nothing_is_pinned_from_above() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = [need.lower() for need in declared["dependencies"]]
    assert not [need for need in needs if need.startswith(("pyqt", "pyside", "napari["))]
    assert not [need for need in needs if "<" in need or "==" in need]


def test_shell_command_is_declared() -> None:
    (command,) = entry_points(group="console_scripts", name="napari-samic")
    assert command.value == "napari_samic.cli:main"


def test_conda_recipe_asks_for_what_the_package_does() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    context = recipe["context"]
    assert context["version"] == declared["version"]
    assert f">={context['python_min']}" == declared["requires-python"]
    on_conda = {"torch": "pytorch"}
    pairs = [need.split(">=") for need in declared["dependencies"]]
    needs = {f"{on_conda.get(name, name)} >={lowest}" for name, lowest in pairs}
    assert {need for need in recipe["requirements"]["run"] if "python_min" not in need} == needs
    (entry,) = recipe["build"]["python"]["entry_points"]
    name, target = entry.split(" = ")
    assert declared["scripts"] == {name: target}
