"""Files and names in the pages for developers are there."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "napari_samic"
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([^|]+) \| [^|]+ \| `([\w/.]+)` `(\w+)` \|$", GLOSSARY, flags=re.MULTILINE)


ROOMS = re.findall(
    r"^\| (`[\w/]+/`.*) \| .+ \| (.*) \|$",
    (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"),
    flags=re.MULTILINE,
)


@pytest.mark.parametrize(("rooms", "modules"), [pytest.param(*r, id=r[0]) for r in ROOMS])
def test_modules_of_a_room_are_in_it(rooms: str, modules: str) -> None:
    folders = [PACKAGE / room for room in re.findall(r"`([\w/]+/)`", rooms)]
    lost = {
        name
        for name in re.findall(r"`(\w+)`", modules)
        if not any((f / name).exists() or (f / f"{name}.py").exists() for f in folders)
    }
    assert not lost


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_paths_of_the_page_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[a-z_]\w*/)+[\w.]*)`", text))
    assert len(named) > 20
    places = [*(ROOT / part for part in ("", "src/napari_samic")), ROOT / page / ".."]
    lost = {
        name
        for name in named - MADE_BY_USE
        if not any((place / (name + end)).exists() for place in places for end in ("", ".py"))
    }
    assert not lost


MADE_BY_USE = {
    "annotated/N",
    "review/NAME.tif",
    "results/NAME.tif",
    "results/edits/NAME.tif",
    "reviews/N",
}
"""Files of a project, not of the repository."""


@pytest.mark.parametrize(("word", "file", "name"), [pytest.param(*r, id=r[0]) for r in ROWS])
def test_glossary_names_what_the_file_defines(word: str, file: str, name: str) -> None:
    source = (PACKAGE / file).read_text(encoding="utf-8")
    assert re.search(rf"^\s*(class|def) {name}\b", source, re.MULTILINE), f"{word}: not in {file}"


def test_glossary_is_read_whole() -> None:
    rows = [line for line in GLOSSARY.splitlines() if line.startswith("| ")]
    heads = GLOSSARY.count("|---|---|---|")
    assert len(ROWS) > 50
    assert len(ROWS) == len(rows) - heads


def test_citation_is_of_the_version_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {declared['version']}\n" in citation
